#include <stdlib.h>
#include <string.h>

#include "compaction.h"

// The library's own words, in the engine's error.
static ckv_status fail_library(ckvl_compaction *c, ckv_status status, int32_t l) {
  return ckvl_fail(c->error, status, "Layer %d: %s", c->global.data[l]->index,
                   ckv_context_error(c->places[c->place[l]].ckv));
}

// Where a place has what selecting needs and gives: on the host the arrays of the host.
typedef struct {
  float *scores;            // of one layer
  char *queries;            // of `held` layers; NULL: where they were captured
  int32_t *indices, *lens;  // of all layers
  size_t query_bytes;       // of a layer
  int32_t held;
  const ckv_context *ckv;  // of the place
  int32_t put_end, next;   // layers before have been put; where the next one's queries are
} selection;

// Of queries at once on a device; in tests few layers, so that there are several turns.
#if defined(CKVL_HOST_IS_DEVICE)
#  define QUERY_BYTES ((size_t)256 << 10)
#else
#  define QUERY_BYTES ((size_t)32 << 20)
#endif

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

static const char *captured_rows(const ckvl_layer *layer, int32_t window) {
  return (const char *)layer->queries + query_row_bytes(layer) * (size_t)(layer->rows - window);
}

// Puts the queries of a place's layers from `l` on, as many as are held there: each copy waits for the
// work before, so that the layers' are not put one by one between.
static ckv_status put_queries(ckvl_compaction *c, const ckv_params *params, int32_t l,
                              selection *s) {
  s->next = 0;
  int32_t put = 0;
  for (; l < c->global.count && put < s->held; l += params->layer_reuse) {
    const ckvl_layer *layer = c->global.data[l];
    ckvl_place *place = &c->places[c->place[l]];
    if (place->ckv != s->ckv) continue;
    const ckv_status status = ckvl_place_put(
        place, s->queries + s->query_bytes * (size_t)put++, captured_rows(layer, params->window),
        query_row_bytes(layer) * (size_t)params->window, c->error);
    if (status) return status;
  }
  s->put_end = l;
  return CKV_OK;
}

static ckv_status score_layer(ckvl_compaction *c, const ckv_params *params, int32_t l, selection *s,
                              ckv_scores *scores) {
  const ckvl_layer *layer = c->global.data[l];
  ckvl_place *place = &c->places[c->place[l]];
  const char *rows = captured_rows(layer, params->window);
  if (s->queries) {
    const ckv_status status = l < s->put_end ? CKV_OK : put_queries(c, params, l, s);
    if (status) return status;
    rows = s->queries + s->query_bytes * (size_t)s->next++;
  }
  const ckv_query_view queries = ckvl_queries_view(layer, params->window, place->device, rows);
  const ckv_kv_view keys = ckvl_rows_view(c, l, layer->keys, layer->key_dim);
  return ckv_score(place->ckv, params, &queries, &keys, scores);
}

static ckv_status select_layer(ckvl_compaction *c, const ckv_params *params, int32_t l,
                               selection *s) {
  const ckvl_layer *layer = c->global.data[l];
  ckv_params own = *params;
  own.scale = layer->scale;
  own.logit_softcap = layer->logit_softcap;
  ckv_scores scores = {
      .struct_size = sizeof scores,
      .batch = 1,
      .num_heads = ckv_score_heads(params, layer->num_kv_heads),
      .kv_len = c->cells.count,
      .data = s->scores,
  };
  scores.count = (int64_t)scores.num_heads * scores.kv_len;
  ckv_kept kept = {
      .struct_size = sizeof kept,
      .batch = 1,
      .num_heads = c->kept.heads[l],
      .capacity = c->kept.capacity,
      .indices = s->indices + (size_t)l * (size_t)c->kept.max_heads * (size_t)c->kept.capacity,
      .lens = s->lens + l,
  };
  ckv_status status = CKV_OK;
  if (scores.num_heads > 0) status = score_layer(c, &own, l, s, &scores);
  if (!status) status = ckv_select(c->places[c->place[l]].ckv, &own, &scores, &kept);
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

// Memory on a device for selecting its layers.
static ckv_status begin_place(ckvl_compaction *c, const ckv_params *params, int32_t p,
                              size_t score_bytes, const selection *host, selection *own) {
  ckvl_place *place = &c->places[p];
  const int32_t listed = c->is_run ? 0 : c->cells.count;
  *own = *host;
  if (place->device == CKV_CPU) {
    return ckvl_place_begin(place, 0, 0, c->cells.cell, listed, c->error);
  }
  for (int32_t l = 0; l < c->global.count; l += params->layer_reuse) {
    const size_t bytes =
        ckvl_place_round(query_row_bytes(c->global.data[l])) * (size_t)params->window;
    if (c->place[l] == p) own->held++;
    if (own->query_bytes < bytes) own->query_bytes = bytes;
  }
  const int32_t most = (int32_t)(QUERY_BYTES / own->query_bytes);
  if (own->held > most) own->held = most > 1 ? most : 1;
  const size_t query_bytes = score_bytes ? own->query_bytes * (size_t)own->held : 0;
  const size_t layers = (size_t)c->global.count;
  const size_t sets =
      sizeof(int32_t) * layers * (size_t)c->kept.max_heads * (size_t)c->kept.capacity;
  const size_t lens = sizeof(int32_t) * layers;
  const size_t all = ckvl_place_round(score_bytes) + ckvl_place_round(query_bytes) +
                     ckvl_place_round(sets) + ckvl_place_round(lens);
  int64_t workspace;
  ckv_status status = ckvl_stage_workspace(c, p, params, &workspace);
  if (!status) {
    status = ckvl_place_begin(place, all, workspace, c->cells.cell, listed, c->error);
  }
  if (status) return status;
  own->scores = ckvl_place_take(place, score_bytes);
  own->queries = ckvl_place_take(place, query_bytes);
  own->ckv = place->ckv;
  own->indices = ckvl_place_take(place, sets);
  own->lens = ckvl_place_take(place, lens);
  return CKV_OK;
}

// What a device has selected, to the host.
static ckv_status fetch(ckvl_compaction *c, int32_t p, const selection *from, const selection *to) {
  ckvl_place *place = &c->places[p];
  if (place->device == CKV_CPU) return CKV_OK;
  ckv_status status = ckvl_place_finish(place, c->error);
  const size_t set = (size_t)c->kept.max_heads * (size_t)c->kept.capacity;
  // Neighbours at once; what lies between those that have selected is not looked at.
  for (int32_t l = 0, end; l < c->global.count && !status; l = end) {
    for (end = l + 1; end < c->global.count && c->place[end] == c->place[l];) end++;
    if (c->place[l] != p) continue;
    const size_t first = (size_t)l, count = (size_t)(end - l);
    status = ckvl_place_get(place, to->indices + set * first, from->indices + set * first,
                            sizeof(int32_t) * set * count, c->error);
    if (status) return status;
    status = ckvl_place_get(place, to->lens + l, from->lens + l, sizeof(int32_t) * count, c->error);
  }
  return status;
}

static ckv_status select_all(ckvl_compaction *c, const ckv_params *params, size_t score_bytes,
                             const selection *host) {
  selection own[CKVL_MAX_PLACES];
  ckv_status status = CKV_OK;
  for (int32_t p = 0; p < c->num_places && !status; p++) {
    status = begin_place(c, params, p, score_bytes, host, &own[p]);
  }
  for (int32_t l = 0; l < c->global.count && !status; l += params->layer_reuse) {
    status = select_layer(c, params, l, &own[c->place[l]]);
  }
  for (int32_t p = 0; p < c->num_places && !status; p++) {
    status = fetch(c, p, &own[p], host);
  }
  ckvl_places_end(c);
  const size_t set = sizeof(int32_t) * (size_t)c->kept.max_heads * (size_t)c->kept.capacity;
  for (int32_t l = 0; l < c->global.count && !status; l++) {
    const int32_t leader = l - l % params->layer_reuse;
    if (leader == l) continue;
    host->lens[l] = host->lens[leader];
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
  const selection host = {.scores = malloc(score_bytes + sizeof(float)),
                          .indices = c->kept.indices,
                          .lens = c->kept.lens};
  if (!host.scores) {
    status = ckvl_fail_memory(c->error, score_bytes);
  } else if (ckvl_selects_own(c, params)) {
    status = ckvl_select_own(c, params, host.scores);
  } else {
    status = select_all(c, params, score_bytes, &host);
    if (!status) status = ckvl_kept_level(&c->kept, c->cells.count, c->error);
    c->drops = c->kept.len < c->cells.count;
  }
  if (!status) status = ckvl_kept_check(&c->kept, c->cells.count, c->error);
  free(host.scores);
  return status;
}
