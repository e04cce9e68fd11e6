// Layers that keep fewer tokens than others: where those go, and which they are.
#include <stdlib.h>
#include <string.h>

#include "attention_node.h"
#include "compaction.h"
#include "hidden.h"

// The sets' tokens but the tail go to the first cells.
static ckv_status move_first(const ckvl_compaction *c, int32_t l, const ckv_kv_view *rows,
                             int32_t count) {
  const ckv_kept kept = {
      .struct_size = sizeof kept,
      .batch = 1,
      .num_heads = c->kept.heads[l],
      .capacity = c->kept.capacity,
      .indices = ckvl_kept_indices(&c->kept, l),
      .lens = &count,
  };
  return ckv_compact(c->ckv, rows, NULL, &kept);
}

// The tail goes to the last of the cells that stay: as if a sequence began `before` cells later.
static ckv_status move_tail(const ckvl_compaction *c, const ckv_kv_view *rows, int32_t before,
                            int32_t tail, int32_t *indices) {
  const int32_t n = c->cells.count - before;
  for (int32_t i = 0; i < tail; i++) indices[i] = n - tail + i;
  ckv_kv_view end = *rows;
  end.kv_len = end.max_blocks = n;
  end.block_table += before;
  const ckv_kept kept = {
      .struct_size = sizeof kept,
      .batch = 1,
      .num_heads = 1,
      .capacity = tail,
      .indices = indices,
      .lens = &tail,
  };
  return ckv_compact(c->ckv, &end, NULL, &kept);
}

// Keys that are all zero, which no token's are, tell which cells are hidden: see hidden.h.
static void hide(const ckvl_compaction *c, const ckvl_layer *layer, int32_t begin, int32_t end,
                 const uint8_t *zeros) {
  for (int32_t i = begin; i < end; i++) {
    c->api->ggml_backend_tensor_set(layer->keys, zeros,
                                    ckvl_row_offset(layer, layer->keys, c->cells.cell[i]),
                                    layer->keys->nb[1]);
  }
}

// Keys or values of a layer: the sets' tokens but the tail, then the tail. `indices`: room for the tail.
static ckv_status move_side(const ckvl_compaction *c, int32_t l, struct ggml_tensor *rows,
                            int32_t head_dim, int32_t *indices, ckvl_staged *staged) {
  const ckvl_layer *layer = c->global.data[l];
  const int32_t n = c->cells.count, tail = ckvl_kept_tail(&c->kept, n);
  ckv_kv_view view;
  ckv_status status =
      ckvl_stage_cells(c->api, layer, rows, head_dim, c->cells.cell, n, staged, &view, c->error);
  if (status) return status;
  status = move_first(c, l, &view, c->kept.lens[l] - tail);
  if (!status) status = move_tail(c, &view, c->kept.len - tail, tail, indices);
  if (status) {
    return ckvl_fail(c->error, status, "Layer %d: %s", layer->index, ckv_context_error(c->ckv));
  }
  ckvl_unstage(c->api, rows, ckvl_row_offset(layer, rows, 0), staged->bytes, staged);
  return CKV_OK;
}

ckv_status ckvl_gather_short(const ckvl_compaction *c, int32_t l) {
  const ckvl_layer *layer = c->global.data[l];
  const int32_t tail = ckvl_kept_tail(&c->kept, c->cells.count);
  int32_t *indices = malloc(sizeof *indices * (size_t)tail);
  uint8_t *zeros = calloc(1, layer->keys->nb[1]);
  ckvl_staged staged = {0};
  ckv_status status = CKV_OK;
  if (!indices || !zeros) {
    status = ckvl_fail_memory(c->error, sizeof *indices * (size_t)tail + layer->keys->nb[1]);
  }
  if (!status) status = move_side(c, l, layer->keys, layer->key_dim, indices, &staged);
  if (!status) status = move_side(c, l, layer->values, layer->value_dim, indices, &staged);
  if (!status) hide(c, layer, c->kept.lens[l] - tail, c->kept.len - tail, zeros);
  ckvl_staged_free(&staged);
  free(indices);
  free(zeros);
  return status;
}

void ckvl_own_tokens_free(ckvl_own_tokens *own) {
  // With places of its own it has a table of cells of its own, behind them.
  free(own->place);
  *own = (ckvl_own_tokens){0};
}

ckv_status ckvl_own_tokens_find(const ckvl_compaction *c, const ckvl_layer *layer,
                                ckvl_own_tokens *own) {
  const int32_t n = c->cells.count;
  *own = (ckvl_own_tokens){.count = n, .cell = c->cells.cell};
  if (!c->has_hidden) return CKV_OK;
  own->place = malloc(sizeof *own->place * 2 * (size_t)n);
  if (!own->place) return ckvl_fail_memory(c->error, sizeof *own->place * 2 * (size_t)n);
  ckvl_staged staged = {0};
  ckv_kv_view keys;
  const ckv_status status = ckvl_stage_cells(c->api, layer, layer->keys, layer->key_dim,
                                             c->cells.cell, n, &staged, &keys, c->error);
  int32_t *cell = own->place + n;
  own->count = 0;
  own->cell = cell;
  const size_t row_bytes = layer->keys->nb[1];
  for (int32_t t = 0; t < n && !status; t++) {
    const uint8_t *row = (const uint8_t *)staged.data + (size_t)c->cells.cell[t] * row_bytes;
    if (ckvl_is_hidden(layer->keys->type, row, row_bytes)) continue;
    own->place[own->count] = t;
    cell[own->count++] = c->cells.cell[t];
  }
  ckvl_staged_free(&staged);
  if (status) ckvl_own_tokens_free(own);
  return status;
}
