#include "staged.h"

#include <stdlib.h>

#include "attention_node.h"
#include "grow.h"
#include "places.h"

void ckvl_staged_free(ckvl_staged *staged) {
  free(staged->copy);
  *staged = (ckvl_staged){0};
}

ckv_status ckvl_stage(const ckvl_api *api, const struct ggml_tensor *tensor, size_t offset,
                      size_t bytes, ckvl_staged *staged, ckvl_error *error) {
  const struct ggml_tensor *base = tensor;
  while (base->view_src) base = base->view_src;
  if (!base->buffer || !tensor->data) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED, "Expected tensor '%s' in memory but it has none",
                     tensor->name);
  }
  staged->bytes = bytes;
  if (ckvl_is_host(api, base)) {
    staged->data = (char *)tensor->data + offset;
    return CKV_OK;
  }
  staged->data = staged->copy = ckvl_grow(staged->copy, &staged->capacity, bytes);
  if (!staged->copy) return ckvl_fail_memory(error, bytes);
  api->ggml_backend_tensor_get(tensor, staged->copy, offset, bytes);
  return CKV_OK;
}

void ckvl_unstage(const ckvl_api *api, struct ggml_tensor *tensor, size_t offset, size_t bytes,
                  const ckvl_staged *staged) {
  if (staged->data != staged->copy) return;
  api->ggml_backend_tensor_set(tensor, staged->copy, offset, bytes);
}

ckv_status ckvl_stage_cells(const ckvl_api *api, const ckvl_layer *layer,
                            const struct ggml_tensor *rows, int32_t head_dim, const int32_t *cell,
                            int32_t count, ckvl_staged *staged, ckv_kv_view *view,
                            ckvl_error *error) {
  int32_t last = 0;
  for (int32_t i = 0; i < count; i++) {
    if (last < cell[i]) last = cell[i];
  }
  const ckv_status status = ckvl_stage(api, rows, ckvl_row_offset(layer, rows, 0),
                                       ((size_t)last + 1) * rows->nb[1], staged, error);
  if (status) return status;
  *view = (ckv_kv_view){
      .struct_size = sizeof(ckv_kv_view),
      .dtype = ckvl_dtype(rows->type),
      .device = CKV_CPU,
      .batch = 1,
      .num_kv_heads = layer->num_kv_heads,
      .head_dim = head_dim,
      .kv_len = count,
      .block_size = 1,
      .data = staged->data,
      .size_bytes = (int64_t)staged->bytes,
      .stride_head = (int64_t)api->ggml_row_size(rows->type, head_dim),
      .stride_block = (int64_t)rows->nb[1],
      .block_table = cell,
      .max_blocks = count,
      .num_blocks = last + 1,
  };
  return CKV_OK;
}
