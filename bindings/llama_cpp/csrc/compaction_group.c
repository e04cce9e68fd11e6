#include "compaction_group.h"

static bool are_alike(const ckvl_layer *a, const ckvl_layer *b) {
  return a->num_q_heads == b->num_q_heads && a->num_kv_heads == b->num_kv_heads &&
         a->key_dim == b->key_dim && a->value_dim == b->value_dim && a->scale == b->scale &&
         a->logit_softcap == b->logit_softcap;
}

int32_t ckvl_group_find(const ckvl_compaction *c, int32_t place, int32_t first, int32_t step,
                        int32_t most, ckvl_group *group) {
  int32_t l = first;
  group->count = 0;
  for (; l < c->global.count; l += step) {
    if (c->place[l] != place) continue;
    const ckvl_layer *layer = c->global.data[l];
    const int32_t i = group->count;
    if (i == most || (i > 0 && !are_alike(c->global.data[group->global[0]], layer))) break;
    group->global[i] = l;
    group->keys[i] = ckvl_rows_view(c, l, layer->keys, layer->key_dim);
    group->values[i] = ckvl_rows_view(c, l, layer->values, layer->value_dim);
    group->layers[i] = (ckv_layer){
        .struct_size = sizeof(ckv_layer), .keys = &group->keys[i], .values = &group->values[i]};
    group->count++;
  }
  return l;
}

ckv_params ckvl_group_params(const ckvl_compaction *c, const ckvl_group *group,
                             const ckv_params *params) {
  const ckvl_layer *layer = c->global.data[group->global[0]];
  ckv_params own = *params;
  own.scale = layer->scale;
  own.logit_softcap = layer->logit_softcap;
  own.layer_reuse = 1;
  return own;
}

ckv_status ckvl_group_workspace(ckvl_compaction *c, int32_t place, const ckv_params *params,
                                int32_t most, bool queries, int64_t *least, int64_t *best) {
  *least = *best = 0;
  if (c->places[place].device == CKV_CPU) return CKV_OK;
  ckvl_group group;
  for (int32_t l = 0; l < c->global.count;) {
    l = ckvl_group_find(c, place, l, params->layer_reuse, most, &group);
    if (group.count == 0) break;
    for (int32_t i = 0; i < group.count && queries; i++) {
      const ckvl_layer *layer = c->global.data[group.global[i]];
      // Sizes count: what is there is not read.
      group.queries[i] = ckvl_queries_view(layer, params->window, CKV_CUDA, layer->keys->data);
      group.layers[i].queries = &group.queries[i];
    }
    const ckv_params own = ckvl_group_params(c, &group, params);
    ckv_context *const ckv = c->places[place].ckv;
    int64_t needed = 0, wanted = 0;
    ckv_status status = ckv_workspace_size(ckv, &own, group.layers, group.count, &needed);
    if (!status) status = ckv_workspace_best(ckv, &own, group.layers, group.count, &wanted);
    if (status) return ckvl_group_fail(c, &group, status);
    if (needed > *least) *least = needed;
    if (wanted > *best) *best = wanted;
  }
  return CKV_OK;
}

ckv_status ckvl_group_fail(ckvl_compaction *c, const ckvl_group *group, ckv_status status) {
  const int32_t first = group->global[0], last = group->global[group->count - 1];
  const char *const why = ckv_context_error(c->places[c->place[first]].ckv);
  if (first == last) {
    return ckvl_fail(c->error, status, "Layer %d: %s", c->global.data[first]->index, why);
  }
  return ckvl_fail(c->error, status, "Layers %d to %d: %s", c->global.data[first]->index,
                   c->global.data[last]->index, why);
}
