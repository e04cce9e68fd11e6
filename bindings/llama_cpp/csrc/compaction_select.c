#include <stdlib.h>
#include <string.h>

#include "compaction.h"

// The library's own words, in the engine's error.
static ckv_status fail_library(ckvl_compaction *c, ckv_status status, int32_t layer) {
  return ckvl_fail(c->error, status, "Layer %d: %s", layer, ckv_context_error(c->ckv));
}

static ckv_query_view queries_view(const ckvl_layer *layer, int32_t window) {
  const int64_t head = (int64_t)sizeof(float) * layer->key_dim;
  const int64_t row = head * layer->num_q_heads;
  return (ckv_query_view){
      .struct_size = sizeof(ckv_query_view),
      .dtype = CKV_F32,
      .device = CKV_CPU,
      .batch = 1,
      .num_q_heads = layer->num_q_heads,
      .window = window,
      .head_dim = layer->key_dim,
      .data = (const char *)layer->queries + row * (layer->rows - window),
      .size_bytes = row * window,
      .stride_batch = row * window,
      .stride_head = head,
      .stride_row = row,
  };
}

static ckv_status select_layer(ckvl_compaction *c, const ckv_params *params, int32_t l,
                               float *scores_data, int32_t *len) {
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
      .lens = len,
  };
  if (scores.num_heads > 0) {
    const ckv_query_view queries = queries_view(layer, params->window);
    const ckv_kv_view keys = ckvl_rows_view(c, layer, layer->keys, layer->key_dim);
    const ckv_status status = ckv_score(c->ckv, &own, &queries, &keys, &scores);
    if (status) return fail_library(c, status, layer->index);
  }
  const ckv_status status = ckv_select(c->ckv, &own, &scores, &kept);
  return status ? fail_library(c, status, layer->index) : CKV_OK;
}

static ckv_status check_params(ckvl_compaction *c, const ckv_params *params) {
  const int32_t n = c->cells.count;
  const bool scores = ckv_score_heads(params, 1) > 0;
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

ckv_status ckvl_compaction_select(ckvl_compaction *c, const ckv_params *params) {
  ckv_status status = check_params(c, params);
  int32_t score_heads = 0;
  if (!status) status = prepare_sets(c, params, &score_heads);
  if (status) return status;
  const size_t floats = (size_t)score_heads * (size_t)c->cells.count;
  float *scores = malloc(sizeof *scores * (floats + 1));
  int32_t *lens = malloc(sizeof *lens * (size_t)c->global.count);
  if (!scores || !lens) status = ckvl_fail_memory(c->error, sizeof *scores * floats);
  const size_t set = sizeof(int32_t) * (size_t)c->kept.max_heads * (size_t)c->kept.capacity;
  for (int32_t l = 0; l < c->global.count && !status; l++) {
    const int32_t leader = l - l % params->layer_reuse;
    if (leader == l) {
      status = select_layer(c, params, l, scores, &lens[l]);
    } else {
      lens[l] = lens[leader];
      memcpy(ckvl_kept_indices(&c->kept, l), ckvl_kept_indices(&c->kept, leader), set);
    }
  }
  if (!status) status = ckvl_kept_level(&c->kept, lens, c->cells.count, c->error);
  if (!status) status = ckvl_kept_check(&c->kept, c->cells.count, c->error);
  free(scores);
  free(lens);
  return status;
}

ckv_status ckvl_compaction_use(ckvl_compaction *c, ckvl_kept *kept) {
  if (kept->num_layers != c->global.count) {
    return ckvl_fail(c->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected indices for the %d global layers but found them for %d",
                     c->global.count, kept->num_layers);
  }
  for (int32_t l = 0; l < c->global.count; l++) {
    const ckvl_layer *layer = c->global.data[l];
    kept->layer[l] = layer->index;
    if (kept->heads[l] != 1 && kept->heads[l] != layer->num_kv_heads) {
      return ckvl_fail(c->error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected 1 or %d index sets for layer %d but found %d", layer->num_kv_heads,
                       layer->index, kept->heads[l]);
    }
  }
  const ckv_status status = ckvl_kept_check(kept, c->cells.count, c->error);
  if (status) return status;
  ckvl_kept_free(&c->kept);
  c->kept = *kept;
  *kept = (ckvl_kept){0};
  return CKV_OK;
}
