#include "capture_mask.h"

#include <stdlib.h>
#include <string.h>

#define F16_MINUS_INFINITY 0xFC00u
#define F16_MAGNITUDE 0x7FFFu

// Reads the row of the newest token that is wanted.
static ckv_status read_mask(ckvl_capture *capture, ckvl_mask *mask,
                            const struct ggml_tensor *tensor, size_t offset) {
  const int32_t cells = (int32_t)tensor->ne[0];
  if (mask->capacity < cells) {
    int32_t *grown = realloc(mask->cells, sizeof *grown * (size_t)cells);
    if (!grown) return ckvl_fail_memory(&capture->reason, sizeof *grown * (size_t)cells);
    mask->cells = grown;
    mask->capacity = cells;
  }
  // The halves are read into the upper part of the list, which the indices then overwrite.
  uint16_t *halves = (uint16_t *)(void *)mask->cells + cells;
  capture->api->ggml_backend_tensor_get(tensor, halves, offset, sizeof *halves * (size_t)cells);
  mask->count = 0;
  for (int32_t i = 0; i < cells; i++) {
    uint16_t half;
    memcpy(&half, &halves[i], sizeof half);
    if (half == F16_MINUS_INFINITY) continue;
    if (half & F16_MAGNITUDE) {
      return ckvl_fail(&capture->reason, CKV_ERROR_UNSUPPORTED,
                       "Expected a mask of 0 and -inf but found other values");
    }
    mask->cells[mask->count++] = i;
  }
  return CKV_OK;
}

ckv_status ckvl_capture_mask(ckvl_capture *capture, ckvl_layer *layer,
                             const struct ggml_tensor *tensor, int64_t row) {
  int32_t m = 0;
  while (!capture->has_one_mask && m < CKVL_MAX_MASKS && capture->masks[m].tensor != tensor) m++;
  // Tensors of earlier graphs are gone: their slots are free.
  for (int32_t i = 0; m == CKVL_MAX_MASKS && i < CKVL_MAX_MASKS; i++) {
    if (!capture->masks[i].tensor || capture->masks[i].next != layer->next) m = i;
  }
  if (m == CKVL_MAX_MASKS) {
    return ckvl_fail(&capture->reason, CKV_ERROR_UNSUPPORTED,
                     "Expected at most %d attention masks but found another in layer %d",
                     CKVL_MAX_MASKS, layer->index);
  }
  layer->mask = m;
  ckvl_mask *mask = &capture->masks[m];
  const bool is_same = mask->tensor == tensor || (capture->has_one_mask && mask->tensor);
  if (is_same && mask->next == layer->next) return CKV_OK;
  mask->tensor = tensor;
  mask->next = layer->next;
  const size_t stream = (size_t)(layer->stream - layer->node_first) * tensor->nb[3];
  return read_mask(capture, mask, tensor, stream + (size_t)row * tensor->nb[1]);
}
