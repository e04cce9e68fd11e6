#include "compress.h"

#include <string.h>

#include "check.h"
#include "compact/compact.h"
#include "cuda/stages.h"
#include "kv_view.h"
#include "select/select.h"

// On a device the lengths themselves are out of sight.
static bool same_sequences(const ckv_context *ctx, const ckv_kv_view *a, const ckv_kv_view *b) {
  if (a->batch != b->batch || a->kv_len != b->kv_len) return false;
  if (ctx->device != CKV_CPU) return a->kv_lens == b->kv_lens;
  for (int32_t i = 0; i < a->batch; i++) {
    if (ckv_kv_len(a, i) != ckv_kv_len(b, i)) return false;
  }
  return true;
}

// Of keys, and of values where they are moved too: rows that are only read may be shared.
static ckv_status check_rows(ckv_context *ctx, const ckv_layer *layers, int32_t l, bool moves) {
  const ckv_layer *layer = &layers[l];
  if (layer->struct_size != sizeof *layer || layer->reserved != 0) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                    "Expected layers[%d].struct_size to be %zu but found %u", l, sizeof *layer,
                    (unsigned)layer->struct_size);
  }
  if (!moves) return ckv_check_kv(ctx, "keys", layer->keys);
  const ckv_status status = ckv_check_kv_writable(ctx, "keys", layer->keys);
  if (status || !layer->values) return status;
  return ckv_check_kv_writable(ctx, "values", layer->values);
}

static ckv_status check_layer(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                              int32_t l, bool moves) {
  const ckv_layer *layer = &layers[l];
  const ckv_kv_view *first = layers[0].keys, *values = moves ? layer->values : NULL;
  const ckv_status status = check_rows(ctx, layers, l, moves);
  if (status) return status;
  if (!same_sequences(ctx, first, layer->keys) ||
      (values && (!same_sequences(ctx, first, values) ||
                  values->num_kv_heads != layer->keys->num_kv_heads)) ||
      layer->keys->num_kv_heads != first->num_kv_heads) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                    "Expected keys and values of layer %d with the sequences and kv heads of layer "
                    "0 but found others",
                    l);
  }
  const int32_t leader = l - l % params->layer_reuse;
  if (leader == l && !layer->queries && ckv_score_heads(params, 1) > 0) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                    "Expected queries for layer %d, which selects, but found NULL", l);
  }
  return CKV_OK;
}

static ckv_status check_layer_kept(ckv_context *ctx, const ckv_params *params,
                                   const ckv_layer *layers, int32_t l, const ckv_kept *kept) {
  const ckv_kv_view *first = layers[0].keys;
  const int32_t leader = l - l % params->layer_reuse;
  const ckv_status status =
      ckv_check_kept(ctx, &kept[l], first->batch, ckv_kept_heads(params, first->num_kv_heads),
                     ckv_kept_capacity(params, first->kv_len));
  if (!status && kept[l].capacity != kept[leader].capacity) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                    "Expected kept[%d].capacity to be %d as in layer %d but found %d", l,
                    kept[leader].capacity, leader, kept[l].capacity);
  }
  return status;
}

static ckv_status select_layer(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                               int32_t num_layers, int32_t l, ckv_kept *kept) {
  const ckv_layer *layer = &layers[l];
  const ckv_kv_view *keys = layer->keys;
  ckv_scores scores = {
      .struct_size = sizeof scores,
      .batch = keys->batch,
      .num_heads = ckv_score_heads(params, keys->num_kv_heads),
      .kv_len = keys->kv_len,
      .kv_lens = keys->kv_lens,
  };
  scores.count = (int64_t)scores.batch * scores.num_heads * scores.kv_len;
  if (scores.num_heads > 0) {
    scores.data = ckv_scratch_get(ctx, CKV_SCRATCH_LAYERS, sizeof(float) * (size_t)scores.count);
    if (!scores.data) return CKV_ERROR_OUT_OF_MEMORY;
    const ckv_status status = ckv_score_checked(ctx, params, layer->queries, keys, &scores);
    if (status) return status;
  }
  return ckv_select_kept_of_layer(ctx, params, l, num_layers, &scores, kept);
}

static void reuse_indices(const ckv_kept *from, ckv_kept *to) {
  const size_t rows = (size_t)from->batch * (size_t)from->num_heads;
  if (rows == 0) return;
  memcpy(to->lens, from->lens, sizeof(int32_t) * (size_t)from->batch);
  memcpy(to->indices, from->indices, sizeof(int32_t) * rows * (size_t)from->capacity);
}

static ckv_status check_count(ckv_context *ctx, const ckv_layer *layers, int32_t num_layers) {
  if (num_layers == 0 || (num_layers > 0 && layers)) return CKV_OK;
  return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT, "Expected %d layers but found NULL", num_layers);
}

static ckv_status check_layers(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                               int32_t num_layers, bool moves) {
  ckv_status status = ckv_check_params(ctx, params);
  if (!status) status = check_count(ctx, layers, num_layers);
  for (int32_t l = 0; l < num_layers && !status; l++) {
    status = check_layer(ctx, params, layers, l, moves);
  }
  // Queues all layers at once, so it is here that each layer's queries are looked at.
  for (int32_t l = 0; l < num_layers && !status && ctx->device != CKV_CPU; l++) {
    if (l % params->layer_reuse != 0 || ckv_score_heads(params, 1) == 0) continue;
    status = ckv_check_queries(ctx, params, layers[l].queries, layers[l].keys);
  }
  return status;
}

ckv_status ckv_workspace_of_layers(ckv_context *ctx, const ckv_params *params,
                                   const ckv_layer *layers, int32_t num_layers, int64_t *least,
                                   int64_t *best) {
  if (!least || !best) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT, "Expected where to put bytes but found NULL");
  }
  *least = *best = 0;
  const ckv_status status = check_layers(ctx, params, layers, num_layers, true);
  if (status || num_layers == 0 || ctx->device == CKV_CPU) return status;
  return ckv_queue_workspace(ctx, params, layers, num_layers, least, best);
}

static ckv_status check_has_kept(ckv_context *ctx, int32_t num_layers, const ckv_kept *kept) {
  if (num_layers == 0 || kept) return CKV_OK;
  return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT, "Expected kept for %d layers but found NULL",
                  num_layers);
}

static ckv_status check_selection(ckv_context *ctx, const ckv_params *params,
                                  const ckv_layer *layers, int32_t num_layers, const ckv_kept *kept,
                                  bool moves) {
  ckv_status status = check_layers(ctx, params, layers, num_layers, moves);
  if (!status) status = check_has_kept(ctx, num_layers, kept);
  for (int32_t l = 0; l < num_layers && !status; l++) {
    status = check_layer_kept(ctx, params, layers, l, kept);
  }
  return status;
}

static ckv_status select_all(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                             int32_t num_layers, ckv_kept *kept) {
  ckv_status status = CKV_OK;
  for (int32_t l = 0; l < num_layers && !status; l++) {
    const int32_t leader = l - l % params->layer_reuse;
    if (leader == l) {
      status = select_layer(ctx, params, layers, num_layers, l, &kept[l]);
    } else {
      reuse_indices(&kept[leader], &kept[l]);
    }
  }
  return status;
}

static ckv_status compact_all(ckv_context *ctx, const ckv_layer *layers, int32_t num_layers,
                              const ckv_kept *kept) {
  ckv_status status = CKV_OK;
  for (int32_t l = 0; l < num_layers && !status; l++) {
    status = ckv_compact_rows(ctx, layers[l].keys, layers[l].keys, &kept[l]);
    if (!status && layers[l].values) {
      status = ckv_compact_rows(ctx, layers[l].values, layers[l].values, &kept[l]);
    }
  }
  return status;
}

ckv_status ckv_select_of_layers(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                                int32_t num_layers, ckv_kept *kept) {
  const ckv_status status = check_selection(ctx, params, layers, num_layers, kept, false);
  if (status) return status;
  if (ctx->device == CKV_CUDA)
    return ckv_queue_layers(ctx, params, layers, num_layers, kept, false);
  return select_all(ctx, params, layers, num_layers, kept);
}

// That rows of the view can be moved by the kept indices: what ckv_compact asks for.
static ckv_status check_moves(ckv_context *ctx, const ckv_kv_view *view, const ckv_kept *kept) {
  const ckv_status status =
      ckv_check_kept(ctx, kept, view->batch, kept->num_heads > 1 ? view->num_kv_heads : 1, 0);
  if (status || ctx->device != CKV_CPU) return status;
  return ckv_check_kept_indices(ctx, kept, view);
}

ckv_status ckv_compact_of_layers(ckv_context *ctx, const ckv_layer *layers, int32_t num_layers,
                                 const ckv_kept *kept) {
  ckv_status status = check_count(ctx, layers, num_layers);
  if (!status) status = check_has_kept(ctx, num_layers, kept);
  for (int32_t l = 0; l < num_layers && !status; l++) {
    status = check_rows(ctx, layers, l, true);
    if (!status) status = check_moves(ctx, layers[l].keys, &kept[l]);
    if (!status && layers[l].values) status = check_moves(ctx, layers[l].values, &kept[l]);
  }
  if (status) return status;
  if (ctx->device == CKV_CUDA) return ckv_queue_compact_layers(ctx, layers, num_layers, kept);
  return compact_all(ctx, layers, num_layers, kept);
}

ckv_status ckv_compress_layers(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                               int32_t num_layers, ckv_kept *kept) {
  ckv_status status = check_selection(ctx, params, layers, num_layers, kept, true);
  if (status) return status;
  if (ctx->device == CKV_CUDA) return ckv_queue_layers(ctx, params, layers, num_layers, kept, true);
  status = select_all(ctx, params, layers, num_layers, kept);
  return status ? status : compact_all(ctx, layers, num_layers, kept);
}
