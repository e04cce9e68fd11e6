#include "hidden.h"

#include <stdlib.h>
#include <string.h>

#include "attention_node.h"
#include "grow.h"
#include "state_blob.h"

#define F16_MINUS_INFINITY 0xFC00u
#define CELL_BYTES 12

static bool half_is_zero(const uint8_t *at) {
  uint16_t half;
  memcpy(&half, at, sizeof half);
  return (half & 0x7FFFu) == 0;
}

bool ckvl_is_hidden(enum ggml_type type, const uint8_t *row, size_t bytes) {
  // Bytes from one number that must be zero to the next; of quantised blocks that is the scale.
  const size_t step = type == GGML_TYPE_Q8_0   ? 34
                      : type == GGML_TYPE_Q4_0 ? 18
                      : type == GGML_TYPE_F32  ? 4
                                               : 2;
  if (bytes == 0) return false;
  for (size_t i = 0; i + step <= bytes; i += step) {
    if (!half_is_zero(row + i)) return false;
    if (step == 4 && !half_is_zero(row + i + 2)) return false;
    if (step == 4 && (row[i] | row[i + 1])) return false;
  }
  return true;
}

bool ckvl_state_has_hidden(const uint8_t *data, size_t size) {
  ckvl_reader r = {.data = data, .size = size};
  ckvl_skip(&r, CKVL_BLOB_HEADER_BYTES + 4);
  const uint32_t cells = ckvl_read_u32(&r);
  if (cells == 0) return false;
  ckvl_skip(&r, (size_t)cells * CELL_BYTES + 4);
  const uint32_t layers = ckvl_read_u32(&r);
  for (uint32_t l = 0; l < layers && !r.failed; l++) {
    const enum ggml_type type = (enum ggml_type)ckvl_read_u32(&r);
    const size_t row = (size_t)ckvl_read_u64(&r);
    for (uint32_t c = 0; c < cells && !r.failed; c++) {
      const size_t at = r.offset;
      ckvl_skip(&r, row);
      if (!r.failed && ckvl_is_hidden(type, data + at, row)) return true;
    }
  }
  return false;
}

void ckvl_hiding_free(ckvl_hiding *hiding) {
  free(hiding->cells);
  free(hiding->saved);
  ckvl_staged_free(&hiding->mask_data);
  ckvl_staged_free(&hiding->keys);
  *hiding = (ckvl_hiding){.api = hiding->api};
}

void ckvl_hiding_begin(ckvl_hiding *hiding, bool is_mixed) {
  hiding->is_on = true;
  hiding->is_mixed = is_mixed;
  hiding->written = -1;
  hiding->mask = NULL;
  hiding->status = CKV_OK;
}

ckv_status ckvl_hiding_end(ckvl_hiding *hiding, ckvl_error *error) {
  if (!hiding->is_on) return CKV_OK;
  hiding->is_on = false;
  hiding->mask = NULL;
  if (hiding->status) *error = hiding->reason;
  return hiding->status;
}

bool ckvl_hiding_is_active(const ckvl_hiding *hiding) { return hiding->mask != NULL; }

// The layer whose keys a node writes, -1: none. Writes are views of the cache with what is written
// and where to as sources; plain views have one source.
static int32_t written_layer(const struct ggml_tensor *node) {
  static const char prefix[] = "cache_k_l";
  const struct ggml_tensor *base = node->view_src;
  if (!base || !node->src[1]) return -1;
  while (base->view_src) base = base->view_src;
  return strncmp(base->name, prefix, sizeof prefix - 1) == 0
             ? (int32_t)strtol(base->name + sizeof prefix - 1, NULL, 10)
             : -1;
}

static uint16_t *mask_at(const ckvl_hiding *h, const struct ggml_tensor *mask, int32_t row,
                         int32_t cell) {
  return (uint16_t *)(void *)(h->mask_data.data + (size_t)row * mask->nb[1]) + cell;
}

// Whether a token of the graph sees a cell; of one sequence the newest sees what any other does.
static bool is_seen(const ckvl_hiding *h, const struct ggml_tensor *mask, int32_t tokens,
                    int32_t cell) {
  int32_t row = tokens - 1;
  while (h->is_mixed && row > 0 && *mask_at(h, mask, row, cell) == F16_MINUS_INFINITY) row--;
  return *mask_at(h, mask, row, cell) != F16_MINUS_INFINITY;
}

// Cells that the graph's tokens see, and that are hidden from this layer.
static ckv_status find_hidden(ckvl_hiding *h, const ckvl_layer *layer,
                              const struct ggml_tensor *mask, int32_t tokens) {
  const int32_t cells = (int32_t)mask->ne[0];
  h->cells = ckvl_grow(h->cells, &h->cells_capacity, sizeof *h->cells * (size_t)cells);
  if (!h->cells) return ckvl_fail_memory(&h->reason, sizeof *h->cells * (size_t)cells);
  h->count = 0;
  const size_t row_bytes = layer->keys->nb[1];
  ckv_status status =
      ckvl_stage(h->api, mask, 0, (size_t)mask->ne[1] * mask->nb[1], &h->mask_data, &h->reason);
  if (!status) {
    status = ckvl_stage(h->api, layer->keys, 0, (size_t)cells * row_bytes, &h->keys, &h->reason);
  }
  for (int32_t c = 0; c < cells && !status; c++) {
    if (!is_seen(h, mask, tokens, c)) continue;
    const uint8_t *row = (const uint8_t *)h->keys.data + (size_t)c * row_bytes;
    if (ckvl_is_hidden(layer->keys->type, row, row_bytes)) h->cells[h->count++] = c;
  }
  return status;
}

static ckv_status mask_hidden(ckvl_hiding *h, struct ggml_tensor *mask) {
  const int32_t rows = (int32_t)mask->ne[1];
  const size_t bytes = sizeof *h->saved * (size_t)rows * (size_t)h->count;
  h->saved = ckvl_grow(h->saved, &h->saved_capacity, bytes);
  if (!h->saved) return ckvl_fail_memory(&h->reason, bytes);
  h->mask = mask;
  h->rows = rows;
  uint16_t *saved = h->saved;
  for (int32_t r = 0; r < rows; r++) {
    for (int32_t i = 0; i < h->count; i++, saved++) {
      uint16_t *at = mask_at(h, mask, r, h->cells[i]);
      *saved = *at;
      *at = F16_MINUS_INFINITY;
    }
  }
  ckvl_unstage(h->api, mask, 0, h->mask_data.bytes, &h->mask_data);
  return CKV_OK;
}

static ckv_status hide(ckvl_hiding *h, struct ggml_tensor *node) {
  ckvl_layer layer;
  memset(&layer, 0, sizeof layer);
  ckv_status status = ckvl_attention_read(h->api, NULL, node, &layer, &h->reason);
  if (status) return status;
  struct ggml_tensor *mask = node->src[3];
  // A mask that the graph computes, or keys that it writes later, could not be relied on yet.
  if (layer.index != h->written || mask->op != GGML_OP_NONE || layer.streams != 1) {
    return ckvl_fail(&h->reason, CKV_ERROR_UNSUPPORTED,
                     "Expected a mask and keys that are there before layer %d attends, to hide "
                     "the tokens that it dropped, but found others",
                     layer.index);
  }
  status = find_hidden(h, &layer, mask, (int32_t)node->src[0]->ne[1]);
  return status || h->count == 0 ? status : mask_hidden(h, mask);
}

bool ckvl_hiding_before(ckvl_hiding *h, struct ggml_tensor *node) {
  if (!h->is_on || h->status) return false;
  const int32_t layer = written_layer(node);
  if (layer >= 0) {
    h->written = layer;
    return true;
  }
  if (node->op != h->api->flash_attention) return false;
  h->status = hide(h, node);
  return h->mask != NULL;
}

void ckvl_hiding_after(ckvl_hiding *h) {
  const uint16_t *saved = h->saved;
  for (int32_t r = 0; h->mask && r < h->rows; r++) {
    for (int32_t i = 0; i < h->count; i++) *mask_at(h, h->mask, r, h->cells[i]) = *saved++;
  }
  if (h->mask) ckvl_unstage(h->api, h->mask, 0, h->mask_data.bytes, &h->mask_data);
  h->mask = NULL;
}
