#include <stdlib.h>
#include <string.h>

#include "compaction.h"

// The library's own words, in the engine's error.
static ckv_status fail_library(ckvl_compaction *c, ckv_status status, int32_t l) {
  return ckvl_fail(c->error, status, "Layer %d: %s", c->global.data[l]->index,
                   ckv_context_error(c->places[c->place[l]].ckv));
}

static size_t query_row_bytes(const ckvl_layer *layer) {
  return sizeof(float) * (size_t)layer->key_dim * (size_t)layer->num_q_heads;
}

ckv_query_view ckvl_queries_view(const ckvl_layer *layer, int32_t window, int32_t device,
                                 const char *data) {
  const int64_t row = (int64_t)query_row_bytes(layer);
  return (ckv_query_view){
      .struct_size = sizeof(ckv_query_view),
      .dtype = CKV_F32,
      .device = device,
      .batch = 1,
      .num_q_heads = layer->num_q_heads,
      .window = window,
      .head_dim = layer->key_dim,
      .data = data,
      .size_bytes = row * window,
      .stride_batch = row * window,
      .stride_head = (int64_t)sizeof(float) * layer->key_dim,
      .stride_row = row,
  };
}

size_t ckvl_queries_bytes(const ckvl_layer *layer, int32_t window) {
  return query_row_bytes(layer) * (size_t)window;
}

const char *ckvl_queries_captured(const ckvl_layer *layer, int32_t window) {
  return (const char *)layer->queries + query_row_bytes(layer) * (size_t)(layer->rows - window);
}

// A layer in host memory. One at a time: its scores stay in the cache until they are chosen by.
static ckv_status select_layer(ckvl_compaction *c, const ckv_params *params, int32_t l,
                               float *scores_data) {
  const ckvl_layer *layer = c->global.data[l];
  ckv_params own = *params;
  own.scale = layer->scale;
  own.logit_softcap = layer->logit_softcap;
  ckv_scores scores = {
      .struct_size = sizeof scores,
      .batch = 1,
      .num_heads = ckv_score_heads(params, layer->num_kv_heads),
      .kv_len = c->cells.count,
      .data = scores_data,
  };
  scores.count = (int64_t)scores.num_heads * scores.kv_len;
  ckv_kept kept = {
      .struct_size = sizeof kept,
      .batch = 1,
      .num_heads = c->kept.heads[l],
      .capacity = c->kept.capacity,
      .indices = ckvl_kept_indices(&c->kept, l),
      .lens = c->kept.lens + l,
  };
  ckv_status status = CKV_OK;
  if (scores.num_heads > 0) {
    const ckv_query_view queries = ckvl_queries_view(layer, params->window, CKV_CPU,
                                                     ckvl_queries_captured(layer, params->window));
    const ckv_kv_view keys = ckvl_rows_view(c, l, layer->keys, layer->key_dim);
    status = ckv_score(c->ckv, &own, &queries, &keys, &scores);
  }
  if (!status) status = ckv_select(c->ckv, &own, &scores, &kept);
  return status ? fail_library(c, status, l) : CKV_OK;
}

static ckv_status check_params(ckvl_compaction *c, const ckv_params *params) {
  const int32_t n = c->cells.count;
  const bool sums_up = params->method == CKV_METHOD_H2O;
  const bool scores = ckv_score_heads(params, 1) > 0 && !sums_up;
  if (sums_up && (!c->sums || c->sums->status)) {
    if (c->sums) *c->error = c->sums->reason;
    return c->sums ? c->sums->status
                   : ckvl_fail(c->error, CKV_ERROR_INVALID_ARGUMENT,
                               "Expected a context that adds up attention, which h2o chooses by, "
                               "but found one that does not: make it with accumulate_attention");
  }
  if (params->layer_reuse > 1 && ckvl_selects_own(c, params)) {
    return ckvl_fail(c->error, CKV_ERROR_UNSUPPORTED,
                     "Expected layers that choose for themselves, as with and after pyramidkv and "
                     "with h2o, but found layer_reuse %d",
                     params->layer_reuse);
  }
  if (scores && params->window > n) {
    return ckvl_fail(c->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected a window of at most the sequence's %d tokens but found %d", n,
                     params->window);
  }
  if (scores && params->window > c->capture->rows) {
    return ckvl_fail(c->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected a window of at most the %d captured queries but found %d",
                     c->capture->rows, params->window);
  }
  if (params->method == CKV_METHOD_CHUNKKV && params->chunk_size > n) {
    return ckvl_fail(c->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected a chunk size of at most the sequence's %d tokens but found %d", n,
                     params->chunk_size);
  }
  if (params->layer_reuse < 1) {
    return ckvl_fail(c->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected layer_reuse to be at least 1 layer but found %d",
                     params->layer_reuse);
  }
  return CKV_OK;
}

// Sizes of the index sets, and memory for them.
static ckv_status prepare_sets(ckvl_compaction *c, const ckv_params *params, int32_t *max_scores) {
  int32_t max_heads = 1;
  *max_scores = 0;
  for (int32_t l = 0; l < c->global.count; l++) {
    const int32_t kv_heads = c->global.data[l]->num_kv_heads;
    if (ckv_kept_heads(params, kv_heads) > max_heads) max_heads = ckv_kept_heads(params, kv_heads);
    if (ckv_score_heads(params, kv_heads) > *max_scores) {
      *max_scores = ckv_score_heads(params, kv_heads);
    }
  }
  const ckv_status status = ckvl_kept_init(&c->kept, c->global.count, max_heads,
                                           ckv_kept_capacity(params, c->cells.count), c->error);
  if (status) return status;
  for (int32_t l = 0; l < c->global.count; l++) {
    c->kept.layer[l] = c->global.data[l]->index;
    c->kept.heads[l] = ckv_kept_heads(params, c->global.data[l]->num_kv_heads);
    const int32_t leader = l - l % params->layer_reuse;
    if (c->kept.heads[l] != c->kept.heads[leader]) {
      return ckvl_fail(c->error, CKV_ERROR_UNSUPPORTED,
                       "Expected layers that share indices to have equally many kv heads but layer "
                       "%d has %d and layer %d has %d",
                       c->kept.layer[leader], c->kept.heads[leader], c->kept.layer[l],
                       c->kept.heads[l]);
    }
  }
  return CKV_OK;
}

static bool selects(const ckvl_compaction *c, const ckv_params *params, int32_t place) {
  for (int32_t l = 0; l < c->global.count; l += params->layer_reuse) {
    if (c->place[l] == place) return true;
  }
  return false;
}

// Work is queued on all devices before the host's own layers are selected for.
static ckv_status select_all(ckvl_compaction *c, const ckv_params *params, float *scores) {
  ckvl_device_selection on_device[CKVL_MAX_PLACES];
  ckv_status status = CKV_OK;
  for (int32_t p = 0; p < c->num_places && !status; p++) {
    ckvl_place *place = &c->places[p];
    if (!selects(c, params, p)) continue;
    if (place->device != CKV_CPU) {
      status = ckvl_device_select(c, params, p, &on_device[p]);
    } else {
      status = ckvl_place_begin(place, 0, 0, c->cells.cell, 0, c->error);
    }
  }
  for (int32_t l = 0; l < c->global.count && !status; l += params->layer_reuse) {
    if (c->places[c->place[l]].device == CKV_CPU) status = select_layer(c, params, l, scores);
  }
  for (int32_t p = 0; p < c->num_places && !status; p++) {
    if (c->places[p].device != CKV_CPU && selects(c, params, p))
      status = ckvl_device_fetch(c, p, &on_device[p]);
  }
  ckvl_places_end(c);
  const size_t set = sizeof(int32_t) * (size_t)c->kept.max_heads * (size_t)c->kept.capacity;
  for (int32_t l = 0; l < c->global.count && !status; l++) {
    const int32_t leader = l - l % params->layer_reuse;
    if (leader == l) continue;
    c->kept.lens[l] = c->kept.lens[leader];
    memcpy(ckvl_kept_indices(&c->kept, l), ckvl_kept_indices(&c->kept, leader), set);
  }
  return status;
}

ckv_status ckvl_compaction_select(ckvl_compaction *c, const ckv_params *params) {
  ckv_status status = check_params(c, params);
  int32_t score_heads = 0;
  if (!status) status = prepare_sets(c, params, &score_heads);
  if (status) return status;
  const size_t score_bytes = sizeof(float) * (size_t)score_heads * (size_t)c->cells.count;
  float *const scores = malloc(score_bytes + sizeof(float));
  if (!scores) {
    status = ckvl_fail_memory(c->error, score_bytes);
  } else if (ckvl_selects_own(c, params)) {
    status = ckvl_select_own(c, params, scores);
  } else {
    status = select_all(c, params, scores);
    if (!status) status = ckvl_kept_level(&c->kept, c->cells.count, c->error);
    c->drops = c->kept.len < c->cells.count;
  }
  if (!status) status = ckvl_kept_check(&c->kept, c->cells.count, c->error);
  free(scores);
  return status;
}
