// The workspace: a header of flags that outlives calls, then what one stage needs while it runs.
#ifndef CKV_CUDA_WORKSPACE_H
#define CKV_CUDA_WORKSPACE_H

#include <stdint.h>

#include "cuda_api.h"

constexpr int64_t CKV_WORKSPACE_HEADER = 4096;

struct CkvWorkspaceCursor {
  int64_t end = CKV_WORKSPACE_HEADER;
  int64_t take(int64_t bytes) {
    const int64_t begin = end;
    end += (bytes + 255) / 256 * 256;
    return begin;
  }
};

inline int64_t ckv_cuda_row_bytes(int32_t dtype, int64_t elements) {
  switch (dtype) {
    case CKV_F32:
      return 4 * elements;
    case CKV_Q8_0:
      return elements / 32 * 34;
    case CKV_Q4_0:
      return elements / 32 * 18;
    case CKV_F8_E4M3:
      return elements;
    default:
      return 2 * elements;
  }
}

// What each stage takes of the workspace: raises *bytes to it.
ckv_status ckv_cuda_score_bytes(const ckv_cuda_call *call, const ckv_params *params,
                                const ckv_layer *layers, int32_t num_layers, int64_t *bytes);
ckv_status ckv_cuda_chunk_bytes(const ckv_cuda_call *call, const ckv_params *params,
                                const ckv_layer *layers, int32_t num_layers, int64_t *bytes);
int64_t ckv_cuda_select_bytes(const ckv_params *params, const ckv_layer *layers,
                              int32_t num_layers);
int64_t ckv_cuda_compact_bytes(const ckv_params *params, const ckv_layer *layers,
                               int32_t num_layers);

#endif
