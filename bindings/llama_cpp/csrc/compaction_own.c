// Selection where each layer has tokens of its own number, or sums to choose by.
#include <stdlib.h>

#include "attention_node.h"
#include "compaction.h"

bool ckvl_selects_own(const ckvl_compaction *c, const ckv_params *params) {
  return c->has_hidden || params->method == CKV_METHOD_H2O ||
         params->method == CKV_METHOD_PYRAMIDKV;
}

static ckv_status fail_library(ckvl_compaction *c, ckv_status status, int32_t layer) {
  return ckvl_fail(c->error, status, "Layer %d: %s", layer, ckv_context_error(c->ckv));
}

// The attention that the layer's tokens have got from all queries so far.
static ckv_status take_sums(ckvl_compaction *c, const ckvl_layer *layer, const ckvl_own_tokens *own,
                            float *scores) {
  const ckvl_sums_layer *sums = ckvl_sums_find(c->sums, layer->index);
  if (!sums || sums->heads != layer->num_kv_heads || c->sums->tokens != c->cells.count) {
    return ckvl_fail(c->error, CKV_ERROR_UNSUPPORTED,
                     "Expected the attention of %d tokens in layer %d but found that of %d",
                     c->cells.count, layer->index, sums ? c->sums->tokens : 0);
  }
  for (int32_t h = 0; h < sums->heads; h++) {
    const double *row = sums->data + (size_t)h * (size_t)c->sums->capacity;
    for (int32_t t = 0; t < own->count; t++) *scores++ = (float)row[own->place ? own->place[t] : t];
  }
  return CKV_OK;
}

static ckv_status score_layer(ckvl_compaction *c, const ckv_params *params, const ckvl_layer *layer,
                              const ckvl_own_tokens *own, ckv_scores *scores) {
  if (params->method == CKV_METHOD_H2O) return take_sums(c, layer, own, scores->data);
  const int32_t window = params->window;
  if (window > own->count) {
    return ckvl_fail(c->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected a window of at most the %d tokens of layer %d but found %d",
                     own->count, layer->index, window);
  }
  const size_t row = (size_t)layer->key_dim * (size_t)layer->num_q_heads;
  const float *rows = layer->queries + row * (size_t)(layer->rows - window);
  const ckv_query_view queries = ckvl_queries_view(layer, window, CKV_CPU, (const char *)rows);
  ckvl_staged staged = {0};
  ckv_kv_view keys;
  ckv_status status = ckvl_stage_cells(c->api, layer, layer->keys, layer->key_dim, own->cell,
                                       own->count, &staged, &keys, c->error);
  if (!status) {
    status = ckv_score(c->ckv, params, &queries, &keys, scores);
    if (status) fail_library(c, status, layer->index);
  }
  ckvl_staged_free(&staged);
  return status;
}

static ckv_status select_layer(ckvl_compaction *c, const ckv_params *params, int32_t l,
                               const ckvl_own_tokens *own, float *scores_data) {
  const ckvl_layer *layer = c->global.data[l];
  ckv_params of_layer = *params;
  of_layer.scale = layer->scale;
  of_layer.logit_softcap = layer->logit_softcap;
  of_layer.budget = ckv_layer_budget(params, c->cells.count, l, c->global.count);
  ckv_scores scores = {
      .struct_size = sizeof scores,
      .batch = 1,
      .num_heads = ckv_score_heads(params, layer->num_kv_heads),
      .kv_len = own->count,
      .data = scores_data,
  };
  scores.count = (int64_t)scores.num_heads * scores.kv_len;
  int32_t *indices = ckvl_kept_indices(&c->kept, l);
  ckv_kept kept = {
      .struct_size = sizeof kept,
      .batch = 1,
      .num_heads = c->kept.heads[l],
      .capacity = c->kept.capacity,
      .indices = indices,
      .lens = &c->kept.lens[l],
  };
  ckv_status status = CKV_OK;
  if (scores.num_heads > 0) status = score_layer(c, &of_layer, layer, own, &scores);
  if (status) return status;
  status = ckv_select(c->ckv, &of_layer, &scores, &kept);
  if (status) return fail_library(c, status, layer->index);
  c->drops = c->drops || c->kept.lens[l] < own->count;
  for (int32_t h = 0; own->place && h < kept.num_heads; h++, indices += kept.capacity) {
    for (int32_t i = 0; i < c->kept.lens[l]; i++) indices[i] = own->place[indices[i]];
  }
  return CKV_OK;
}

ckv_status ckvl_select_own(ckvl_compaction *c, const ckv_params *params, float *scores) {
  for (int32_t l = 0; l < c->global.count; l++) {
    ckvl_own_tokens own;
    ckv_status status = ckvl_own_tokens_find(c, c->global.data[l], &own);
    if (!status) status = select_layer(c, params, l, &own, scores);
    ckvl_own_tokens_free(&own);
    if (status) return status;
  }
  ckvl_kept_measure(&c->kept);
  return CKV_OK;
}
