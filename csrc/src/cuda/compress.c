// All layers of a model: one launch per stage where their shapes allow it.
//
// The workspace holds what the stages need, then the scores of every layer that selects.
#include "device.h"
#include "stages.h"

#define ALIGNMENT 256

// measure has seen that it does not overflow.
static int64_t scores_per_layer(const ckv_params *params, const ckv_kv_view *keys) {
  return (int64_t)keys->batch * ckv_score_heads(params, keys->num_kv_heads) * keys->kv_len;
}

static int32_t num_leaders(const ckv_params *params, int32_t num_layers) {
  return (int32_t)(((int64_t)num_layers + params->layer_reuse - 1) / params->layer_reuse);
}

// What the stages take of a workspace, and the scores of every layer that selects behind it.
typedef struct {
  int64_t scores;       // bytes
  int64_t least, best;  // of all
} needs;

static int64_t round_up(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static ckv_status measure(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                          int32_t num_layers, needs *n) {
  const ckv_kv_view *keys = layers[0].keys;
  const int64_t rows = (int64_t)keys->batch * ckv_score_heads(params, keys->num_kv_heads);
  *n = (needs){0};
  bool fits = !__builtin_mul_overflow(rows, keys->kv_len, &n->scores) &&
              !__builtin_mul_overflow(n->scores, (int64_t)sizeof(float), &n->scores) &&
              !__builtin_mul_overflow(n->scores, num_leaders(params, num_layers), &n->scores);
  if (fits) {
    const ckv_cuda_call call = ckv_cuda_call_of(ctx);
    const ckv_status status =
        ctx->cuda->api->workspace_size(&call, params, layers, num_layers, &n->least, &n->best);
    if (status) return status;
    fits = !__builtin_add_overflow(round_up(n->least), n->scores, &n->least) &&
           !__builtin_add_overflow(round_up(n->best), n->scores, &n->best);
  }
  if (fits) return CKV_OK;
  return ckv_fail(ctx, CKV_ERROR_OUT_OF_MEMORY, "Expected fewer tokens than the memory can hold");
}

// Makes room, and calls for the stages what lies before the scores.
static ckv_status reserve(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                          int32_t num_layers, ckv_cuda_call *call, float **scores) {
  needs n;
  ckv_status status = measure(ctx, params, layers, num_layers, &n);
  if (!status) status = ckv_cuda_reserve(ctx, n.least, n.best);
  if (status) return status;
  *call = ckv_cuda_call_of(ctx);
  call->workspace_bytes = (call->workspace_bytes - n.scores) / ALIGNMENT * ALIGNMENT;
  *scores = (float *)((char *)call->workspace + call->workspace_bytes);
  return CKV_OK;
}

ckv_status ckv_queue_workspace(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                               int32_t num_layers, int64_t *least, int64_t *best) {
  needs n;
  const ckv_status status = measure(ctx, params, layers, num_layers, &n);
  *least = n.least;
  *best = n.best;
  return status;
}

ckv_status ckv_queue_score_chunks(ckv_context *ctx, const ckv_params *params,
                                  const ckv_query_view *queries, const ckv_kv_view *keys,
                                  float *chunk_scores) {
  const ckv_layer layer = {.struct_size = sizeof layer, .queries = queries, .keys = keys};
  ckv_cuda_call call;
  ckv_scores scores = {.struct_size = sizeof scores,
                       .batch = keys->batch,
                       .num_heads = ckv_score_heads(params, keys->num_kv_heads),
                       .kv_len = keys->kv_len,
                       .kv_lens = keys->kv_lens,
                       .count = scores_per_layer(params, keys)};
  const ckv_status status = reserve(ctx, params, &layer, 1, &call, &scores.data);
  return status ? status
                : ctx->cuda->api->score_chunks(&call, params, &layer, &scores, chunk_scores);
}

// What the library is handed, one array each.
typedef struct {
  ckv_layer *leaders;
  ckv_scores *scores;
  ckv_kept *chosen;
  const ckv_kv_view **views;
  const ckv_kept **kept;
} tables;

// One block for all of them; NULL where memory is out.
static void *make_tables(ckv_context *ctx, int32_t num_layers, tables *t) {
  const size_t n = (size_t)num_layers;
  const size_t bytes = n * (sizeof *t->leaders + sizeof *t->scores + sizeof *t->chosen) +
                       2 * n * (sizeof *t->views + sizeof *t->kept);
  char *block = ckv_scratch_get(ctx, CKV_SCRATCH_LAYERS, bytes);
  if (!block) return NULL;
  t->leaders = (ckv_layer *)block;
  t->scores = (ckv_scores *)(t->leaders + n);
  t->chosen = (ckv_kept *)(t->scores + n);
  t->views = (const ckv_kv_view **)(t->chosen + n);
  t->kept = (const ckv_kept **)(t->views + 2 * n);
  return block;
}

static ckv_status choose(ckv_context *ctx, const ckv_cuda_call *call, const ckv_params *params,
                         const ckv_layer *layers, int32_t num_layers, const ckv_kept *kept,
                         float *scores, tables *t) {
  const ckv_kv_view *keys = layers[0].keys;
  const int64_t count = scores_per_layer(params, keys);
  const int32_t leaders = num_leaders(params, num_layers);
  for (int32_t i = 0; i < leaders; i++) {
    const int32_t l = i * params->layer_reuse;
    t->leaders[i] = layers[l];
    t->chosen[i] = kept[l];
    t->scores[i] = (ckv_scores){.struct_size = sizeof(ckv_scores),
                                .batch = keys->batch,
                                .num_heads = ckv_score_heads(params, keys->num_kv_heads),
                                .kv_len = keys->kv_len,
                                .kv_lens = keys->kv_lens,
                                .data = count > 0 ? scores + i * count : NULL,
                                .count = count};
  }
  const ckv_cuda_api *api = ctx->cuda->api;
  return count > 0 ? api->choose(call, params, t->leaders, leaders, t->scores, t->chosen)
                   : api->select(call, params, t->scores, leaders, t->chosen);
}

// Layers that reuse a selection are told it, too: kept is filled in for every layer.
static ckv_status share(ckv_context *ctx, const ckv_params *params, int32_t num_layers,
                        const ckv_kept *kept) {
  const ckv_cuda_call call = ckv_cuda_call_of(ctx);
  const ckv_cuda_api *api = ctx->cuda->api;
  ckv_status status = CKV_OK;
  for (int32_t l = 0; l < num_layers && !status; l++) {
    const ckv_kept *from = &kept[l - l % params->layer_reuse], *to = &kept[l];
    const int64_t sets = (int64_t)from->batch * from->num_heads;
    if (from == to || sets * from->capacity == 0) continue;
    if (to->lens != from->lens) {
      status = api->copy(&call, to->lens, from->lens, from->batch * (int64_t)sizeof(int32_t),
                         CKV_CUDA_ON_DEVICE);
    }
    if (!status && to->indices != from->indices) {
      status = api->copy(&call, to->indices, from->indices,
                         sets * from->capacity * (int64_t)sizeof(int32_t), CKV_CUDA_ON_DEVICE);
    }
  }
  return status;
}

// `reuse`: layers that are moved by one layer's indices.
static ckv_status move(ckv_context *ctx, int32_t reuse, const ckv_layer *layers, int32_t num_layers,
                       const ckv_kept *kept, tables *t) {
  int32_t views = 0;
  for (int32_t l = 0; l < num_layers; l++) {
    const ckv_kept *chosen = &kept[l - l % reuse];
    t->views[views] = layers[l].keys;
    t->kept[views++] = chosen;
    if (!layers[l].values) continue;
    t->views[views] = layers[l].values;
    t->kept[views++] = chosen;
  }
  const ckv_cuda_call call = ckv_cuda_call_of(ctx);
  return ctx->cuda->api->compact(&call, t->views, t->views, t->kept, views);
}

ckv_status ckv_queue_layers(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                            int32_t num_layers, const ckv_kept *kept, bool moves) {
  if (num_layers == 0 || layers[0].keys->batch == 0) return CKV_OK;
  ckv_cuda_call call;
  float *scores;
  ckv_status status = reserve(ctx, params, layers, num_layers, &call, &scores);
  if (status) return status;
  tables t;
  if (!make_tables(ctx, num_layers, &t)) return CKV_ERROR_OUT_OF_MEMORY;
  status = choose(ctx, &call, params, layers, num_layers, kept, scores, &t);
  if (!status) status = share(ctx, params, num_layers, kept);
  if (status || !moves) return status;
  return move(ctx, params->layer_reuse, layers, num_layers, kept, &t);
}

ckv_status ckv_queue_compact_layers(ckv_context *ctx, const ckv_layer *layers, int32_t num_layers,
                                    const ckv_kept *kept) {
  if (num_layers == 0) return CKV_OK;
  tables t;
  if (!make_tables(ctx, num_layers, &t)) return CKV_ERROR_OUT_OF_MEMORY;
  for (int32_t l = 0; l < num_layers; l++) {
    t.leaders[l] = (ckv_layer){.struct_size = sizeof *layers, .keys = layers[l].keys};
  }
  const ckv_params params = ckv_moving_params();
  needs n;
  ckv_status status = measure(ctx, &params, t.leaders, num_layers, &n);
  if (!status) status = ckv_cuda_reserve(ctx, n.least, n.least);
  return status ? status : move(ctx, 1, layers, num_layers, kept, &t);
}
