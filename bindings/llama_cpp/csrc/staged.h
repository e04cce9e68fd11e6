// Bytes of a tensor, or rows of cells, where the CPU reads them: the engine's own memory, or a copy of what
// a device has.
#ifndef CKVL_STAGED_H
#define CKVL_STAGED_H

#include "capture.h"

typedef struct ckvl_staged {
  char *data;  // [bytes]
  size_t bytes;
  char *copy;  // of a device's memory, kept from call to call; NULL: there was none yet
  size_t capacity;
} ckvl_staged;

void ckvl_staged_free(ckvl_staged *staged);

// `bytes` of the tensor from `offset` on; a copy is of this moment.
ckv_status ckvl_stage(const ckvl_api *api, const struct ggml_tensor *tensor, size_t offset,
                      size_t bytes, ckvl_staged *staged, ckvl_error *error);

// Writes the first `bytes` back, to where they were staged from: nothing to do in the engine's own memory.
void ckvl_unstage(const ckvl_api *api, struct ggml_tensor *tensor, size_t offset, size_t bytes,
                  const ckvl_staged *staged);

// Keys or values of a layer up to the last of `count` listed cells, and the view of them, one cell per
// block.
ckv_status ckvl_stage_cells(const ckvl_api *api, const ckvl_layer *layer,
                            const struct ggml_tensor *rows, int32_t head_dim, const int32_t *cell,
                            int32_t count, ckvl_staged *staged, ckv_kv_view *view,
                            ckvl_error *error);

#endif
