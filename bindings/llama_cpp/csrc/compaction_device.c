// Selection of the layers on a device: several in one call.
#include "compaction_group.h"

// At once on a device: of queries, and of workspace, which has the scores of all layers of a call. In
// tests few layers', so that there are several turns.
#if defined(CKVL_HOST_IS_DEVICE)
#  define QUERY_BYTES ((size_t)256 << 10)
#  define WORKSPACE_BYTES (20 << 10)
#else
#  define QUERY_BYTES ((size_t)32 << 20)
#  define WORKSPACE_BYTES (64 << 20)
#endif

static size_t set_bytes(const ckvl_compaction *c) {
  return sizeof(int32_t) * (size_t)c->kept.max_heads * (size_t)c->kept.capacity;
}

static bool has_scores(const ckv_params *params) { return ckv_score_heads(params, 1) > 0; }

// How many layers a call is made for, and the workspace that it gets: no more than that where less does.
static ckv_status plan(ckvl_compaction *c, const ckv_params *params, int32_t p,
                       ckvl_device_selection *s, int64_t *workspace) {
  int32_t layers = 0;
  for (int32_t l = 0; l < c->global.count; l += params->layer_reuse) {
    if (c->place[l] != p) continue;
    const size_t bytes = ckvl_place_round(ckvl_queries_bytes(c->global.data[l], params->window));
    if (s->query_bytes < bytes) s->query_bytes = bytes;
    layers++;
  }
  s->most = layers < CKVL_GROUP_LAYERS ? layers : CKVL_GROUP_LAYERS;
  if (!has_scores(params)) s->query_bytes = 0;
  const size_t held = s->query_bytes ? QUERY_BYTES / s->query_bytes : CKVL_GROUP_LAYERS;
  if ((size_t)s->most > held) s->most = (int32_t)held;
  if (s->most < 1) s->most = 1;
  int64_t best;
  ckv_status status;
  for (;; s->most = (s->most + 1) / 2) {
    status = ckvl_group_workspace(c, p, params, s->most, has_scores(params), workspace, &best);
    if (status || s->most == 1 || *workspace <= WORKSPACE_BYTES) break;
  }
  if (best > WORKSPACE_BYTES) best = WORKSPACE_BYTES;
  if (*workspace < best) *workspace = best;
  return status;
}

static ckv_status begin(ckvl_compaction *c, const ckv_params *params, int32_t p,
                        ckvl_device_selection *s) {
  ckvl_place *place = &c->places[p];
  const int32_t listed = c->is_run ? 0 : c->cells.count;
  *s = (ckvl_device_selection){0};
  int64_t workspace;
  ckv_status status = plan(c, params, p, s, &workspace);
  if (status) return status;
  const size_t queries = s->query_bytes * (size_t)s->most;
  const size_t sets = set_bytes(c) * (size_t)c->global.count;
  const size_t lens = sizeof(int32_t) * (size_t)c->global.count;
  const size_t all = ckvl_place_round(queries) + ckvl_place_round(sets) + ckvl_place_round(lens);
  status = ckvl_place_begin(place, all, workspace, c->cells.cell, listed, c->error);
  if (status) return status;
  s->queries = ckvl_place_take(place, queries);
  s->indices = ckvl_place_take(place, sets);
  s->lens = ckvl_place_take(place, lens);
  return CKV_OK;
}

// Puts the group's queries, before any of its work is queued: each copy waits for the work before.
static ckv_status put_queries(ckvl_compaction *c, const ckv_params *params, int32_t p,
                              const ckvl_device_selection *s, ckvl_group *group) {
  for (int32_t i = 0; i < group->count; i++) {
    const ckvl_layer *layer = c->global.data[group->global[i]];
    char *const at = s->queries + s->query_bytes * (size_t)i;
    const ckv_status status =
        ckvl_place_put(&c->places[p], at, ckvl_queries_captured(layer, params->window),
                       ckvl_queries_bytes(layer, params->window), c->error);
    if (status) return status;
    group->queries[i] = ckvl_queries_view(layer, params->window, CKV_CUDA, at);
    group->layers[i].queries = &group->queries[i];
  }
  return CKV_OK;
}

static ckv_status select_group(ckvl_compaction *c, const ckv_params *params, int32_t p,
                               const ckvl_device_selection *s, ckvl_group *group) {
  ckv_status status = has_scores(params) ? put_queries(c, params, p, s, group) : CKV_OK;
  if (status) return status;
  for (int32_t i = 0; i < group->count; i++) {
    const int32_t l = group->global[i];
    group->kept[i] = (ckv_kept){
        .struct_size = sizeof(ckv_kept),
        .batch = 1,
        .num_heads = c->kept.heads[l],
        .capacity = c->kept.capacity,
        .indices = s->indices + set_bytes(c) / sizeof(int32_t) * (size_t)l,
        .lens = s->lens + l,
    };
  }
  const ckv_params own = ckvl_group_params(c, group, params);
  status = ckv_select_layers(c->places[p].ckv, &own, group->layers, group->count, group->kept);
  return status ? ckvl_group_fail(c, group, status) : CKV_OK;
}

ckv_status ckvl_device_select(ckvl_compaction *c, const ckv_params *params, int32_t place,
                              ckvl_device_selection *s) {
  ckv_status status = begin(c, params, place, s);
  for (int32_t l = 0; l < c->global.count && !status;) {
    ckvl_group group;
    l = ckvl_group_find(c, place, l, params->layer_reuse, s->most, &group);
    if (group.count > 0) status = select_group(c, params, place, s, &group);
  }
  return status;
}

ckv_status ckvl_device_fetch(ckvl_compaction *c, int32_t p, const ckvl_device_selection *s) {
  ckvl_place *place = &c->places[p];
  ckv_status status = ckvl_place_finish(place, c->error);
  const size_t set = set_bytes(c) / sizeof(int32_t);
  // Neighbours at once; what lies between those that have selected is not looked at.
  for (int32_t l = 0, end; l < c->global.count && !status; l = end) {
    for (end = l + 1; end < c->global.count && c->place[end] == c->place[l];) end++;
    if (c->place[l] != p) continue;
    const size_t first = (size_t)l, count = (size_t)(end - l);
    status = ckvl_place_get(place, c->kept.indices + set * first, s->indices + set * first,
                            sizeof(int32_t) * set * count, c->error);
    if (status) return status;
    status =
        ckvl_place_get(place, c->kept.lens + l, s->lens + l, sizeof(int32_t) * count, c->error);
  }
  return status;
}
