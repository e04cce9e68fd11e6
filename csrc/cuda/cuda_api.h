// What libchunkkv asks of libchunkkv_cuda, which it opens at run time where a driver is: one table
// of functions behind one exported symbol. Internal; both are built from the same sources.
//
// Every call works on the stream and in the workspace of its ckv_cuda_call, allocates nothing and
// waits for nothing unless its comment says so, so that a CUDA graph can capture it. Views, scores
// and kept indices hold device pointers throughout, their kv_lens, block_table and lens too; what
// they point to is read by kernels only, so what it contains is checked there (see fault).
// Callers have checked everything that the host can see.
#ifndef CKV_CUDA_API_H
#define CKV_CUDA_API_H

#include <stddef.h>
#include <stdint.h>

#include "../include/chunkkv.h"

#define CKV_CUDA_API_VERSION 4
#define CKV_CUDA_API_SYMBOL "ckv_cuda_api_get"

typedef struct ckv_cuda_call {
  void *stream;  // cudaStream_t; NULL: the default stream
  void *workspace;
  int64_t workspace_bytes;
  int32_t device_index;
  char *error;  // written on failure: what was expected and what was found
  size_t error_bytes;
} ckv_cuda_call;

typedef struct ckv_cuda_device {
  char name[128];
  int64_t memory_bytes;
  int32_t compute_major;
  int32_t compute_minor;
  int32_t multiprocessors;
  int32_t driver_version;  // 13000: CUDA 13.0
} ckv_cuda_device;

typedef enum ckv_cuda_copy_kind {
  CKV_CUDA_TO_DEVICE = 0,
  CKV_CUDA_TO_HOST = 1,
  CKV_CUDA_ON_DEVICE = 2,
} ckv_cuda_copy_kind;

typedef struct ckv_cuda_api {
  uint32_t version;
  uint32_t struct_size;

  // Devices that can be used; none: -1 and the reason in `error`.
  int32_t (*device_count)(char *error, size_t error_bytes);
  ckv_status (*describe)(const ckv_cuda_call *call, ckv_cuda_device *device);

  // The device that memory is on; -1: none.
  int32_t (*find)(const void *memory);

  ckv_status (*allocate)(const ckv_cuda_call *call, int64_t bytes, void **memory);
  ckv_status (*release)(const ckv_cuda_call *call, void *memory);
  ckv_status (*copy)(const ckv_cuda_call *call, void *to, const void *from, int64_t bytes,
                     int32_t kind);
  // Waits for the stream.
  ckv_status (*synchronize)(const ckv_cuda_call *call);

  // Bytes that the stages below need for these layers together, and with which score_chunks and choose
  // are fastest: what lies in between is used as far as it goes.
  ckv_status (*workspace_size)(const ckv_cuda_call *call, const ckv_params *params,
                               const ckv_layer *layers, int32_t num_layers, int64_t *least,
                               int64_t *best);

  // Once before a workspace is used for the first time: clears its header.
  ckv_status (*prepare)(const ckv_cuda_call *call);

  // One entry per layer; layers of one shape share a launch.
  ckv_status (*score)(const ckv_cuda_call *call, const ckv_params *params, const ckv_layer *layers,
                      int32_t num_layers, const ckv_scores *scores);
  ckv_status (*chunk_scores)(const ckv_cuda_call *call, const ckv_params *params,
                             const ckv_scores *scores, float *chunk_scores);
  // Both of the above in one, of one layer: room for token scores is used where they are needed.
  ckv_status (*score_chunks)(const ckv_cuda_call *call, const ckv_params *params,
                             const ckv_layer *layer, const ckv_scores *scores, float *chunk_scores);
  ckv_status (*select)(const ckv_cuda_call *call, const ckv_params *params,
                       const ckv_scores *scores, int32_t num_layers, const ckv_kept *kept);
  // score and select of all layers in one. The room for scores holds anything afterwards.
  ckv_status (*choose)(const ckv_cuda_call *call, const ckv_params *params, const ckv_layer *layers,
                       int32_t num_layers, const ckv_scores *scores, const ckv_kept *kept);
  // src[i] to dst[i] by kept[i]; dst[i] == src[i]: in place.
  ckv_status (*compact)(const ckv_cuda_call *call, const ckv_kv_view *const *src,
                        const ckv_kv_view *const *dst, const ckv_kept *const *kept,
                        int32_t num_views);

  // Waits for the stream, then says what kernels found since the last time: NaN in queries or keys
  // (NUMERIC), a block table entry or an index outside its view (OUT_OF_BOUNDS). Once a kernel has
  // found something, the stages after it move no row.
  ckv_status (*fault)(const ckv_cuda_call *call);
} ckv_cuda_api;

typedef const ckv_cuda_api *(*ckv_cuda_api_getter)(uint32_t version);  // NULL: not that version

#endif
