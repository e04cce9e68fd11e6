#include "accumulator.h"

#include <stdlib.h>
#include <string.h>

#include "attention_node.h"
#include "cells.h"
#include "grow.h"

#define F16_MINUS_INFINITY 0xFC00u

void ckvl_accumulator_free(ckvl_accumulator *a) {
  for (int32_t l = 0; l < a->num_layers; l++) free(a->layers[l].sums);
  for (int32_t m = 0; m < CKVL_MAX_MASKS; m++) free(a->orders[m].cells);
  free(a->layers);
  free(a->halves);
  free(a->scores);
  ckvl_staged_free(&a->queries);
  ckvl_staged_free(&a->keys);
  *a = (ckvl_accumulator){.api = a->api, .ckv = a->ckv};
}

void ckvl_accumulator_begin(ckvl_accumulator *a) {
  a->is_on = true;
  a->status = CKV_OK;
  for (int32_t l = 0; l < a->num_layers; l++) {
    ckvl_gain *gain = &a->layers[l];
    gain->seen = 0;
    gain->slides = false;
    memset(gain->sums, 0, sizeof(double) * (size_t)gain->heads * (size_t)gain->cells);
  }
  for (int32_t m = 0; m < CKVL_MAX_MASKS; m++) a->orders[m].tensor = NULL;
}

bool ckvl_accumulator_wants(const ckvl_accumulator *a, const struct ggml_tensor *node) {
  return a->is_on && !a->status && node->op == a->api->flash_attention;
}

static ckv_status find_gain(ckvl_accumulator *a, const ckvl_layer *layer, ckvl_gain **found) {
  const int32_t cells = (int32_t)layer->keys->ne[1];
  for (int32_t l = 0; l < a->num_layers; l++) {
    if (a->layers[l].index != layer->index) continue;
    *found = &a->layers[l];
    if (a->layers[l].heads == layer->num_kv_heads && a->layers[l].cells == cells) return CKV_OK;
    return ckvl_fail(&a->reason, CKV_ERROR_UNSUPPORTED,
                     "Expected one attention per layer but layer %d has two kinds", layer->index);
  }
  const size_t count = (size_t)a->num_layers + 1;
  ckvl_gain *grown = realloc(a->layers, sizeof *grown * count);
  if (!grown) return ckvl_fail_memory(&a->reason, sizeof *grown * count);
  a->layers = grown;
  const size_t sums = (size_t)layer->num_kv_heads * (size_t)cells;
  grown[a->num_layers] = (ckvl_gain){
      .index = layer->index,
      .heads = layer->num_kv_heads,
      .cells = cells,
      .sums = calloc(sums, sizeof(double)),
  };
  *found = &grown[a->num_layers];
  if (!(*found)->sums) return ckvl_fail_memory(&a->reason, sizeof(double) * sums);
  a->num_layers++;
  return CKV_OK;
}

// Cells that row `now` of the mask sees and the row before it, `last`, did not. NULL: there is none.
static ckv_status add_row(ckvl_accumulator *a, ckvl_order *order, const uint16_t *last,
                          const uint16_t *now, int32_t cells) {
  int32_t found = 0;
  for (int32_t c = 0; c < cells; c++) {
    const bool seen = now[c] != F16_MINUS_INFINITY;
    const bool before = last && last[c] != F16_MINUS_INFINITY;
    if (before && !seen) order->slides = true;
    if (!seen || before) continue;
    order->cells[order->count + found++] = c;
  }
  if (last && found != 1 && !order->slides) {
    return ckvl_fail(&a->reason, CKV_ERROR_UNSUPPORTED,
                     "Expected each token to see one cell more than the one before it but found %d",
                     found);
  }
  order->count += found;
  return CKV_OK;
}

// In which cells the keys are, oldest first as far as tokens of this graph are concerned. What lies
// before them all of them see, in whatever order.
static ckv_status read_order(ckvl_accumulator *a, ckvl_order *order, const struct ggml_tensor *mask,
                             int32_t rows) {
  const int32_t cells = (int32_t)mask->ne[0];
  const size_t row_bytes = sizeof(uint16_t) * (size_t)cells;
  a->halves = ckvl_grow(a->halves, &a->halves_capacity, 2 * row_bytes);
  if (order->capacity < 2 * cells) {
    free(order->cells);
    order->cells = malloc(sizeof *order->cells * 2 * (size_t)cells);
    order->capacity = order->cells ? 2 * cells : 0;
  }
  if (!a->halves || !order->cells) return ckvl_fail_memory(&a->reason, 2 * row_bytes);
  order->count = 0;
  order->slides = false;
  for (int32_t i = 0; i < rows; i++) {
    uint16_t *now = a->halves + (i % 2) * cells;
    a->api->ggml_backend_tensor_get(mask, now, (size_t)i * mask->nb[1], row_bytes);
    const uint16_t *last = i > 0 ? a->halves + (1 - i % 2) * cells : NULL;
    const ckv_status status = add_row(a, order, last, now, cells);
    if (status || order->slides) return status;
  }
  return CKV_OK;
}

// The order of a graph's cells: read once for all layers that share a mask.
static ckv_status find_order(ckvl_accumulator *a, const ckvl_gain *gain,
                             const struct ggml_tensor *mask, int32_t rows, bool is_own,
                             ckvl_order **found) {
  int32_t m = 0;
  while (m < CKVL_MAX_MASKS && a->orders[m].tensor != mask) m++;
  for (int32_t i = 0; m == CKVL_MAX_MASKS && i < CKVL_MAX_MASKS; i++) {
    if (!a->orders[i].tensor || a->orders[i].seen != gain->seen) m = i;
  }
  if (m == CKVL_MAX_MASKS) {
    return ckvl_fail(&a->reason, CKV_ERROR_UNSUPPORTED,
                     "Expected at most %d attention masks but found another in layer %d",
                     CKVL_MAX_MASKS, gain->index);
  }
  ckvl_order *order = *found = &a->orders[m];
  if (order->tensor == mask && order->seen == gain->seen && !is_own) return CKV_OK;
  order->tensor = is_own ? NULL : mask;
  order->seen = gain->seen;
  return read_order(a, order, mask, rows);
}

// The library's sum over all rows of the node, each of which sees the tokens up to its own.
static ckv_status score(ckvl_accumulator *a, const struct ggml_tensor *node,
                        const ckvl_layer *layer, const ckvl_order *order) {
  const struct ggml_tensor *q = node->src[0];
  const size_t floats = (size_t)layer->num_kv_heads * (size_t)order->count;
  a->scores = ckvl_grow(a->scores, &a->scores_capacity, sizeof *a->scores * floats);
  if (!a->scores) return ckvl_fail_memory(&a->reason, sizeof *a->scores * floats);
  const size_t query_bytes = (size_t)(q->ne[1] - 1) * q->nb[1] + (size_t)(q->ne[2] - 1) * q->nb[2] +
                             (size_t)q->ne[0] * sizeof(float);
  ckv_kv_view keys;
  ckv_status status = ckvl_stage(a->api, q, 0, query_bytes, &a->queries, &a->reason);
  if (!status) {
    status = ckvl_stage_cells(a->api, layer, layer->keys, layer->key_dim, order->cells,
                              order->count, &a->keys, &keys, &a->reason);
  }
  if (status) return status;
  ckv_params params;
  ckv_default_params(&params);
  params.method = CKV_METHOD_H2O;
  params.budget = 1;
  params.scale = layer->scale;
  params.logit_softcap = layer->logit_softcap;
  const ckv_query_view queries = {
      .struct_size = sizeof queries,
      .dtype = CKV_F32,
      .batch = 1,
      .num_q_heads = layer->num_q_heads,
      .window = (int32_t)q->ne[1],
      .head_dim = layer->key_dim,
      .data = a->queries.data,
      .size_bytes = (int64_t)a->queries.bytes,
      .stride_head = (int64_t)q->nb[2],
      .stride_row = (int64_t)q->nb[1],
  };
  ckv_scores scores = {
      .struct_size = sizeof scores,
      .batch = 1,
      .num_heads = layer->num_kv_heads,
      .kv_len = order->count,
      .data = a->scores,
      .count = (int64_t)floats,
  };
  status = ckv_score(a->ckv, &params, &queries, &keys, &scores);
  if (!status) return CKV_OK;
  return ckvl_fail(&a->reason, status, "Layer %d: %s", layer->index, ckv_context_error(a->ckv));
}

static ckv_status add_node(ckvl_accumulator *a, const struct ggml_tensor *node, bool is_own_mask) {
  ckvl_layer layer;
  memset(&layer, 0, sizeof layer);
  ckv_status status = ckvl_attention_read(a->api, NULL, node, &layer, &a->reason);
  if (status) return status;
  if (layer.streams != 1) {
    return ckvl_fail(&a->reason, CKV_ERROR_UNSUPPORTED,
                     "Expected keys in one stream of cells, to add up their attention, but layer "
                     "%d has %d",
                     layer.index, layer.streams);
  }
  ckvl_gain *gain = NULL;
  ckvl_order *order = NULL;
  const int32_t rows = (int32_t)node->src[0]->ne[1];
  status = find_gain(a, &layer, &gain);
  if (!status) status = find_order(a, gain, node->src[3], rows, is_own_mask, &order);
  if (status) return status;
  gain->seen += rows;
  gain->slides = gain->slides || order->slides;
  if (gain->slides) return CKV_OK;
  status = score(a, node, &layer, order);
  for (int32_t h = 0; h < gain->heads && !status; h++) {
    double *sums = gain->sums + (size_t)h * (size_t)gain->cells;
    const float *more = a->scores + (size_t)h * (size_t)order->count;
    for (int32_t i = 0; i < order->count; i++) sums[order->cells[i]] += (double)more[i];
  }
  return status;
}

void ckvl_accumulator_add(ckvl_accumulator *a, const struct ggml_tensor *node, bool is_own_mask) {
  a->status = add_node(a, node, is_own_mask);
}

// Which of the capture's masks a layer has; -1: the capture does not know it.
static int32_t mask_of(const ckvl_capture *capture, int32_t index) {
  for (int32_t l = 0; l < capture->num_layers; l++) {
    if (capture->layers[l].index == index) return capture->layers[l].mask;
  }
  return -1;
}

// Layers that the sums have from the start go on; a window that begins to slide leaves them.
static ckv_status choose_layers(ckvl_accumulator *a, const ckvl_capture *capture,
                                const ckvl_cells cells[CKVL_MAX_MASKS], ckvl_sums *sums) {
  for (int32_t l = 0; l < a->num_layers; l++) {
    const ckvl_gain *gain = &a->layers[l];
    const int32_t mask = mask_of(capture, gain->index);
    if (gain->slides || mask < 0 || cells[mask].count == 0) {
      ckvl_sums_remove(sums, gain->index);
    } else if (sums->tokens == 0 && !ckvl_sums_find(sums, gain->index)) {
      ckvl_sums_layer *layer;
      const ckv_status status = ckvl_sums_add(sums, gain->index, gain->heads, &layer, &a->reason);
      if (status) return status;
    }
  }
  if (sums->num_layers > 0) return CKV_OK;
  return ckvl_fail(&a->reason, CKV_ERROR_UNSUPPORTED,
                   "Expected layers whose tokens see all before them but found none");
}

static ckv_status merge(ckvl_accumulator *a, const ckvl_capture *capture,
                        const ckvl_cells cells[CKVL_MAX_MASKS], int32_t num_tokens,
                        ckvl_sums *sums) {
  const int32_t tokens = sums->tokens + num_tokens;
  ckv_status status = choose_layers(a, capture, cells, sums);
  if (!status) status = ckvl_sums_extend(sums, tokens, &a->reason);
  for (int32_t l = 0; l < a->num_layers && !status; l++) {
    const ckvl_gain *gain = &a->layers[l];
    const ckvl_sums_layer *layer = ckvl_sums_find(sums, gain->index);
    if (!layer) continue;
    if (layer->heads != gain->heads) {
      return ckvl_fail(&a->reason, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected attention of %d heads in layer %d but that given has %d",
                       gain->heads, gain->index, layer->heads);
    }
    const ckvl_cells *own = &cells[mask_of(capture, gain->index)];
    if (own->count != tokens) {
      return ckvl_fail(&a->reason, CKV_ERROR_UNSUPPORTED,
                       "Expected %d tokens in the cache but found %d", tokens, own->count);
    }
    for (int32_t h = 0; h < layer->heads; h++) {
      double *row = layer->data + (size_t)h * (size_t)sums->capacity;
      const double *more = gain->sums + (size_t)h * (size_t)gain->cells;
      for (int32_t t = 0; t < tokens; t++) row[t] += more[own->cell[t]];
    }
  }
  return status;
}

void ckvl_accumulator_end(ckvl_accumulator *a, struct llama_context *ctx, llama_seq_id seq,
                          const ckvl_capture *capture, int32_t num_tokens, ckvl_sums *sums) {
  a->is_on = false;
  ckv_status status = capture->status ? capture->status : a->status;
  if (capture->status) a->reason = capture->reason;
  ckvl_cells cells[CKVL_MAX_MASKS] = {{0}};
  // The mask of a sliding window fits no more once it slides, and is no matter before.
  for (int32_t m = 0; m < CKVL_MAX_MASKS && !status; m++) {
    const ckvl_mask *mask = &capture->masks[m];
    ckvl_error ignored;
    if (!mask->tensor || mask->next != capture->next) continue;
    if (ckvl_cells_read(a->api, ctx, seq, 1, mask->cells, mask->count, &cells[m], &ignored)) {
      cells[m].count = 0;
    }
  }
  if (!status) status = merge(a, capture, cells, num_tokens, sums);
  for (int32_t m = 0; m < CKVL_MAX_MASKS; m++) ckvl_cells_free(&cells[m]);
  if (!status) return;
  ckvl_sums_free(sums);
  sums->status = status;
  sums->reason = a->reason;
}
