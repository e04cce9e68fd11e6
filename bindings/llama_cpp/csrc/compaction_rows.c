// The rows of a compaction: where they are, and how they move.
#include <string.h>

#include "attention_node.h"
#include "compaction_group.h"

ckv_kv_view ckvl_rows_view(const ckvl_compaction *c, int32_t l, const struct ggml_tensor *rows,
                           int32_t head_dim) {
  const ckvl_layer *layer = c->global.data[l];
  const ckvl_place *place = &c->places[c->place[l]];
  const int32_t n = c->cells.count;
  ckv_kv_view view = {
      .struct_size = sizeof(ckv_kv_view),
      .dtype = ckvl_dtype(rows->type),
      .device = place->device,
      .batch = 1,
      .num_kv_heads = layer->num_kv_heads,
      .head_dim = head_dim,
      .kv_len = n,
      .stride_head = (int64_t)c->api->ggml_row_size(rows->type, head_dim),
  };
  const int32_t first = c->is_run && n > 0 ? c->cells.cell[0] : 0;
  view.data = (char *)rows->data + ckvl_row_offset(layer, rows, first);
  view.size_bytes = (rows->ne[1] - first) * (int64_t)rows->nb[1];
  if (!c->is_run) {
    view.block_size = 1;
    view.stride_block = (int64_t)rows->nb[1];
    // Before the place has begun, sizes are all that is asked for.
    view.block_table = place->cells ? place->cells : c->cells.cell;
    view.max_blocks = n;
    view.num_blocks = (int32_t)rows->ne[1];
  } else {
    view.stride_token = (int64_t)rows->nb[1];
    view.stride_batch = view.size_bytes;
  }
  return view;
}

void ckvl_places_end(ckvl_compaction *c) {
  for (int32_t p = 0; p < c->num_places; p++) ckvl_place_end(&c->places[p]);
}

bool ckvl_is_on_device(const ckvl_compaction *c) {
  for (int32_t p = 0; p < c->num_places; p++) {
    if (c->places[p].device != CKV_CPU) return true;
  }
  return false;
}

// Index sets of all layers, and each one's length.
typedef struct {
  int32_t *indices, *lens;
} sets;

static size_t set_bytes(const ckvl_kept *kept) {
  return sizeof *kept->indices * (size_t)kept->max_heads * (size_t)kept->capacity;
}

// The sets are the first that is taken of a place's memory after begin.
static ckv_status begin_place(ckvl_compaction *c, int32_t p) {
  ckvl_place *place = &c->places[p];
  const size_t all = set_bytes(&c->kept) * (size_t)c->kept.num_layers;
  const size_t bytes = ckvl_place_round(all) + ckvl_place_round(sizeof c->kept.len);
  ckv_params params;
  ckv_default_params(&params);
  params.method = CKV_METHOD_FULL;  // of stages that score or choose nothing is needed
  params.budget = c->kept.len;
  int64_t workspace, best;
  ckvl_place_end(place);
  const ckv_status status =
      ckvl_group_workspace(c, p, &params, CKVL_GROUP_LAYERS, false, &workspace, &best);
  if (status) return status;
  return ckvl_place_begin(place, bytes, workspace, c->cells.cell, c->is_run ? 0 : c->cells.count,
                          c->error);
}

ckv_status ckvl_rows_begin(ckvl_compaction *c) {
  for (int32_t p = 0; p < c->num_places; p++) {
    const ckv_status status = begin_place(c, p);
    if (status) return status;
  }
  return CKV_OK;
}

static ckv_status put_sets(ckvl_compaction *c, int32_t p, sets *s) {
  ckvl_place *place = &c->places[p];
  *s = (sets){c->kept.indices, &c->kept.len};
  if (place->device == CKV_CPU) return CKV_OK;
  const size_t all = set_bytes(&c->kept) * (size_t)c->kept.num_layers;
  s->indices = ckvl_place_take(place, all);
  s->lens = ckvl_place_take(place, sizeof c->kept.len);
  const ckv_status status = ckvl_place_put(place, s->indices, c->kept.indices, all, c->error);
  if (status) return status;
  return ckvl_place_put(place, s->lens, &c->kept.len, sizeof c->kept.len, c->error);
}

static ckv_kept kept_of(const ckvl_compaction *c, int32_t l, const sets *s) {
  return (ckv_kept){
      .struct_size = sizeof(ckv_kept),
      .batch = 1,
      .num_heads = c->kept.heads[l],
      .capacity = c->kept.capacity,
      .indices = s->indices + set_bytes(&c->kept) / sizeof *s->indices * (size_t)l,
      .lens = s->lens,
  };
}

// A layer in host memory, or one that keeps fewer tokens than others.
static ckv_status gather_layer(ckvl_compaction *c, int32_t l, const sets *s) {
  const ckvl_layer *layer = c->global.data[l];
  ckv_context *ckv = c->places[c->place[l]].ckv;
  if (c->kept.lens[l] < c->kept.len) return ckvl_gather_short(c, l);
  const ckv_kept kept = kept_of(c, l, s);
  const ckv_kv_view keys = ckvl_rows_view(c, l, layer->keys, layer->key_dim);
  const ckv_kv_view values = ckvl_rows_view(c, l, layer->values, layer->value_dim);
  ckv_status status = ckv_compact(ckv, &keys, NULL, &kept);
  if (!status) status = ckv_compact(ckv, &values, NULL, &kept);
  if (!status) return CKV_OK;
  return ckvl_fail(c->error, status, "Layer %d: %s", layer->index, ckv_context_error(ckv));
}

// The layers of a group on a device in one call, but for those that keep fewer tokens than others.
static ckv_status gather_group(ckvl_compaction *c, const ckvl_group *group, const sets *s) {
  ckv_layer layers[CKVL_GROUP_LAYERS];
  ckv_kept kept[CKVL_GROUP_LAYERS];
  int32_t count = 0;
  for (int32_t i = 0; i < group->count; i++) {
    const int32_t l = group->global[i];
    if (c->kept.lens[l] < c->kept.len) {
      const ckv_status status = gather_layer(c, l, s);
      if (status) return status;
      continue;
    }
    layers[count] = group->layers[i];
    kept[count++] = kept_of(c, l, s);
  }
  const ckv_status status =
      ckv_compact_layers(c->places[c->place[group->global[0]]].ckv, layers, count, kept);
  return status ? ckvl_group_fail(c, group, status) : CKV_OK;
}

static ckv_status gather_place(ckvl_compaction *c, int32_t p, const sets *s) {
  const bool is_host = c->places[p].device == CKV_CPU;
  ckv_status status = CKV_OK;
  for (int32_t l = 0; l < c->global.count && !status && is_host; l++) {
    if (c->place[l] == p) status = gather_layer(c, l, s);
  }
  for (int32_t l = 0; l < c->global.count && !status && !is_host;) {
    ckvl_group group;
    l = ckvl_group_find(c, p, l, 1, CKVL_GROUP_LAYERS, &group);
    if (group.count > 0) status = gather_group(c, &group, s);
  }
  return status;
}

ckv_status ckvl_rows_gather(ckvl_compaction *c) {
  ckv_status status = CKV_OK;
  sets s[CKVL_MAX_PLACES];
  for (int32_t p = 0; p < c->num_places && !status; p++) status = put_sets(c, p, &s[p]);
  for (int32_t p = 0; p < c->num_places && !status; p++) status = gather_place(c, p, &s[p]);
  for (int32_t p = 0; p < c->num_places && !status; p++) {
    status = ckvl_place_finish(&c->places[p], c->error);
  }
  return status;
}
