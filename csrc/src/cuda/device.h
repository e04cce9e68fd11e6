// What a context of CKV_CUDA holds: a device, a stream and a workspace.
#ifndef CKV_CUDA_DEVICE_H
#define CKV_CUDA_DEVICE_H

#include "../context.h"
#include "load.h"

typedef struct ckv_cuda {
  const ckv_cuda_api *api;
  int32_t index;
  void *stream;
  void *workspace;  // the caller's or our own
  int64_t workspace_bytes;
  bool owned;
} ckv_cuda;

// CKV_ERROR_UNSUPPORTED or CKV_ERROR_INVALID_ARGUMENT where ckv_device_describe says why.
ckv_status ckv_cuda_open(int32_t index, ckv_cuda **cuda);
void ckv_cuda_close(ckv_cuda *cuda);  // NULL is fine

// How the library is called on this context; errors go to the context's text.
ckv_cuda_call ckv_cuda_call_of(ckv_context *ctx);

// CKV_ERROR_UNSUPPORTED in a context of the CPU.
ckv_status ckv_cuda_expect(ckv_context *ctx);

// A workspace of at least `least` bytes: refuses the caller's where it is smaller; grows our own to
// `best`, or to what there is memory for.
ckv_status ckv_cuda_reserve(ckv_context *ctx, int64_t least, int64_t best);

#endif
