// compress: equals its stages called one by one and its two halves, layers reuse indices, a failure
// moves nothing.
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "chunkkv.h"
#include "test.h"

#define LAYERS 5
#define BATCH 2
#define Q_HEADS 6
#define KV_HEADS 2
#define DIM 40
#define TOKENS 150
#define WINDOW 16
#define KV (BATCH * KV_HEADS * TOKENS * DIM)
#define Q (BATCH * Q_HEADS * WINDOW * DIM)

static float keys[LAYERS][KV], values[LAYERS][KV], queries[LAYERS][Q];
static float staged_keys[LAYERS][KV], staged_values[LAYERS][KV];
static int32_t indices[LAYERS][BATCH * KV_HEADS * TOKENS], lens[LAYERS][BATCH];
static const int32_t kv_lens[BATCH] = {TOKENS, 97};
static ckv_query_view q[LAYERS];
static ckv_kv_view k[LAYERS], v[LAYERS];
static ckv_layer layers[LAYERS];
static ckv_kept kept[LAYERS];
static ckv_context *context;

static ckv_kv_view view(float *data) {
  return (ckv_kv_view){.struct_size = sizeof(ckv_kv_view),
                       .batch = BATCH,
                       .num_kv_heads = KV_HEADS,
                       .head_dim = DIM,
                       .kv_len = TOKENS,
                       .data = data,
                       .size_bytes = sizeof keys[0],
                       .stride_batch = KV_HEADS * TOKENS * DIM * 4,
                       .stride_head = TOKENS * DIM * 4,
                       .stride_token = DIM * 4,
                       .kv_lens = kv_lens};
}

static void fresh(const ckv_params *params) {
  for (int32_t l = 0; l < LAYERS; l++) {
    for (int32_t i = 0; i < KV; i++) {
      keys[l][i] = test_float() - 0.5f;
      values[l][i] = test_float();
    }
    for (int32_t i = 0; i < Q; i++) queries[l][i] = 4 * (test_float() - 0.5f);
    q[l] = (ckv_query_view){.struct_size = sizeof q[l],
                            .batch = BATCH,
                            .num_q_heads = Q_HEADS,
                            .window = WINDOW,
                            .head_dim = DIM,
                            .data = queries[l],
                            .size_bytes = sizeof queries[l],
                            .stride_batch = Q_HEADS * WINDOW * DIM * 4,
                            .stride_head = WINDOW * DIM * 4,
                            .stride_row = DIM * 4};
    k[l] = view(keys[l]);
    v[l] = view(values[l]);
    layers[l] = (ckv_layer){sizeof layers[l], 0, &q[l], &k[l], &v[l]};
    kept[l] = (ckv_kept){sizeof kept[l], BATCH,      ckv_kept_heads(params, KV_HEADS),
                         TOKENS,         indices[l], lens[l]};
  }
  memcpy(staged_keys, keys, sizeof keys);
  memcpy(staged_values, values, sizeof values);
}

static void equals_the_stages(ckv_params params) {
  fresh(&params);
  CHECK(ckv_compress(context, &params, layers, LAYERS, kept) == CKV_OK, "%s",
        ckv_context_error(context));
  static float scores_data[BATCH * KV_HEADS * TOKENS];
  static int32_t stage_indices[BATCH * KV_HEADS * TOKENS], stage_lens[BATCH];
  for (int32_t l = 0; l < LAYERS; l++) {
    const int32_t leader = l - l % params.layer_reuse;
    ckv_kv_view keys_view = k[leader];
    static float leader_keys[KV];
    // The leader's own keys as they were: compress has moved them since.
    memcpy(leader_keys, staged_keys[leader], sizeof leader_keys);
    keys_view.data = leader_keys;
    if (l > leader) {
      const size_t set_bytes = sizeof(int32_t) * (size_t)(BATCH * kept[l].num_heads * TOKENS);
      CHECK(memcmp(indices[l], indices[leader], set_bytes) == 0, "layer %d reuses %d", l, leader);
      continue;
    }
    ckv_scores scores = {sizeof scores, BATCH,       ckv_score_heads(&params, KV_HEADS), TOKENS,
                         kv_lens,       scores_data, BATCH * KV_HEADS * TOKENS};
    if (scores.num_heads) {
      CHECK(ckv_score(context, &params, &q[l], &keys_view, &scores) == CKV_OK, "%s",
            ckv_context_error(context));
    }
    ckv_kept stage = kept[l];
    stage.indices = stage_indices;
    stage.lens = stage_lens;
    for (int32_t b = 0; b < BATCH; b++) {
      ckv_params own = params;
      own.budget = ckv_layer_budget(&params, kv_lens[b], l, LAYERS);
      CHECK(ckv_select(context, &own, &scores, &stage) == CKV_OK, "%s", ckv_context_error(context));
      CHECK(stage_lens[b] == lens[l][b], "layer %d, sequence %d", l, b);
      for (int32_t h = 0; h < stage.num_heads; h++) {
        const int32_t at = (b * stage.num_heads + h) * TOKENS;
        CHECK(memcmp(stage_indices + at, indices[l] + at,
                     sizeof(int32_t) * (size_t)stage_lens[b]) == 0,
              "layer %d, sequence %d, head %d", l, b, h);
      }
    }
  }
  int same = 1;
  for (int32_t l = 0; l < LAYERS; l++) {
    for (int32_t b = 0; b < BATCH; b++) {
      for (int32_t h = 0; h < KV_HEADS; h++) {
        const int32_t set = b * kept[l].num_heads + (kept[l].num_heads > 1 ? h : 0);
        for (int32_t i = 0; i < lens[l][b]; i++) {
          const int32_t row = (b * KV_HEADS + h) * TOKENS;
          const int32_t from = (row + indices[l][set * TOKENS + i]) * DIM, to = (row + i) * DIM;
          same &= memcmp(&keys[l][to], &staged_keys[l][from], DIM * 4) == 0;
          same &= memcmp(&values[l][to], &staged_values[l][from], DIM * 4) == 0;
        }
      }
    }
  }
  CHECK(same, "rows are where the indices say");
}

static ckv_kept half_kept[LAYERS];
static int32_t half_indices[LAYERS][BATCH * KV_HEADS * TOKENS], half_lens[LAYERS][BATCH];

static void take_half_kept(void) {
  for (int32_t l = 0; l < LAYERS; l++) {
    half_kept[l] = kept[l];
    half_kept[l].indices = half_indices[l];
    half_kept[l].lens = half_lens[l];
  }
}

static bool rows_are(const void *of_keys, const void *of_values) {
  return memcmp(of_keys, keys, sizeof keys) == 0 && memcmp(of_values, values, sizeof values) == 0;
}

static bool same_indices(int32_t l, int32_t b) {
  bool same = half_lens[l][b] == lens[l][b];
  for (int32_t h = 0; h < kept[l].num_heads && same; h++) {
    const int32_t at = (b * kept[l].num_heads + h) * TOKENS;
    same = memcmp(half_indices[l] + at, indices[l] + at, sizeof(int32_t) * (size_t)lens[l][b]) == 0;
  }
  return same;
}

// Select without values, then compact, on what compress is given afterwards.
static void halves_equal_the_whole(const ckv_params *params) {
  static float moved_keys[LAYERS][KV], moved_values[LAYERS][KV];
  fresh(params);
  take_half_kept();
  ckv_layer without[LAYERS];
  for (int32_t l = 0; l < LAYERS; l++) {
    const bool leads = l % params->layer_reuse == 0;
    without[l] = (ckv_layer){sizeof *without, 0, leads ? &q[l] : NULL, &k[l], NULL};
  }
  CHECK(ckv_select_layers(context, params, without, LAYERS, half_kept) == CKV_OK, "%s",
        ckv_context_error(context));
  CHECK(rows_are(staged_keys, staged_values), "selecting moved rows");
  for (int32_t l = 0; l < LAYERS; l++) layers[l].queries = NULL;
  CHECK(ckv_compact_layers(context, layers, LAYERS, half_kept) == CKV_OK, "%s",
        ckv_context_error(context));
  memcpy(moved_keys, keys, sizeof keys);
  memcpy(moved_values, values, sizeof values);
  memcpy(keys, staged_keys, sizeof keys);
  memcpy(values, staged_values, sizeof values);
  for (int32_t l = 0; l < LAYERS; l++) layers[l].queries = &q[l];
  CHECK(ckv_compress(context, params, layers, LAYERS, kept) == CKV_OK, "%s",
        ckv_context_error(context));
  for (int32_t i = 0; i < LAYERS * BATCH; i++) {
    CHECK(same_indices(i / BATCH, i % BATCH), "other indices in layer %d", i / BATCH);
  }
  CHECK(rows_are(moved_keys, moved_values), "other rows");
}

// What select takes that compress refuses, and what compact refuses when all else is right.
static void halves_check_what_they_use(void) {
  ckv_params params;
  ckv_default_params(&params);
  params.window = WINDOW;
  params.budget = 60;
  fresh(&params);
  take_half_kept();
  keys[LAYERS - 1][5] = NAN;
  CHECK(ckv_select_layers(context, &params, layers, LAYERS, half_kept) == CKV_ERROR_NUMERIC, "NaN");
  fresh(&params);
  layers[3].queries = NULL;
  CHECK(
      ckv_select_layers(context, &params, layers, LAYERS, half_kept) == CKV_ERROR_INVALID_ARGUMENT,
      "no queries");
  layers[3].queries = &q[3];
  // Two sequences that share all their blocks of one token.
  static int32_t blocks[BATCH * TOKENS];
  for (int32_t i = 0; i < BATCH * TOKENS; i++) blocks[i] = i % TOKENS;
  ckv_kv_view shared = k[1];
  shared.block_size = 1;
  shared.stride_block = shared.stride_token;
  shared.block_table = blocks;
  shared.max_blocks = shared.num_blocks = TOKENS;
  layers[1].keys = &shared;
  CHECK(ckv_compress(context, &params, layers, LAYERS, kept) == CKV_ERROR_INVALID_ARGUMENT,
        "shared blocks were written");
  CHECK(ckv_select_layers(context, &params, layers, LAYERS, half_kept) == CKV_OK, "%s",
        ckv_context_error(context));
  CHECK(ckv_compact_layers(context, layers, LAYERS, half_kept) == CKV_ERROR_INVALID_ARGUMENT,
        "shared blocks were written");
  CHECK(rows_are(staged_keys, staged_values), "a failed call moved rows");
  layers[1].keys = &k[1];
  half_indices[LAYERS - 1][half_lens[LAYERS - 1][0] - 1] = TOKENS;
  CHECK(ckv_compact_layers(context, layers, LAYERS, half_kept) == CKV_ERROR_INVALID_ARGUMENT,
        "an index outside: %s", ckv_context_error(context));
  half_indices[LAYERS - 1][half_lens[LAYERS - 1][0] - 1] = TOKENS - 1;
  half_kept[LAYERS - 1].batch = 1;
  CHECK(ckv_compact_layers(context, layers, LAYERS, half_kept) == CKV_ERROR_INVALID_ARGUMENT,
        "sets of one sequence");
  half_kept[LAYERS - 1].batch = BATCH;
  v[LAYERS - 1].batch = 1;
  CHECK(ckv_compact_layers(context, layers, LAYERS, half_kept) == CKV_ERROR_INVALID_ARGUMENT,
        "values of one sequence");
  v[LAYERS - 1].batch = BATCH;
  CHECK(ckv_compact_layers(context, layers, -1, half_kept) == CKV_ERROR_INVALID_ARGUMENT, "-1");
  CHECK(rows_are(staged_keys, staged_values), "a failed call moved rows");
  // Layers of another shape are moved as well.
  v[2].num_kv_heads = 1;
  v[2].head_dim = DIM - 8;
  layers[4].values = NULL;
  CHECK(ckv_compact_layers(context, layers, LAYERS, half_kept) == CKV_OK, "%s",
        ckv_context_error(context));
  const int32_t from = half_indices[2][7] * DIM, other = TOKENS * DIM + 7 * DIM;
  CHECK(memcmp(&values[2][7 * DIM], &staged_values[2][from], (DIM - 8) * 4) == 0, "not moved");
  CHECK(memcmp(&values[2][other], &staged_values[2][other], DIM * 4) == 0, "another head moved");
  CHECK(memcmp(values[4], staged_values[4], sizeof values[4]) == 0, "values of none moved");
}

static void failure_moves_nothing(void) {
  ckv_params params;
  ckv_default_params(&params);
  params.window = WINDOW;
  params.budget = 60;
  fresh(&params);
  keys[LAYERS - 1][5] = NAN;
  memcpy(staged_keys, keys, sizeof keys);
  CHECK(ckv_compress(context, &params, layers, LAYERS, kept) == CKV_ERROR_NUMERIC,
        "NaN, last layer");
  CHECK(memcmp(staged_keys, keys, sizeof keys) == 0, "keys of every layer stay");
  CHECK(memcmp(staged_values, values, sizeof values) == 0, "values of every layer stay");
  fresh(&params);
  layers[3].queries = NULL;
  CHECK(ckv_compress(context, &params, layers, LAYERS, kept) == CKV_ERROR_INVALID_ARGUMENT, "no q");
  CHECK(memcmp(staged_keys, keys, sizeof keys) == 0, "keys of every layer stay");
  params.layer_reuse = 2;
  CHECK(ckv_compress(context, &params, layers, LAYERS, kept) == CKV_OK,
        "a layer that reuses needs no queries: %s", ckv_context_error(context));
}

int main(void) {
  test_begin("compress");
  ckv_context_params context_params;
  ckv_context_default_params(&context_params);
  context_params.num_threads = 2;
  if (ckv_context_create(&context_params, &context) != CKV_OK) return 1;
  for (int32_t method = 0; ckv_method_name(method); method++) {
    for (int32_t reuse = 1; reuse <= 3; reuse++) {
      ckv_params params;
      ckv_default_params(&params);
      params.method = method;
      params.layer_reuse = reuse;
      params.window = WINDOW;
      params.budget = test_int(1, TOKENS + 10);
      params.fill = test_int(0, 1);
      equals_the_stages(params);
      halves_equal_the_whole(&params);
    }
  }
  failure_moves_nothing();
  halves_check_what_they_use();
  ckv_context_free(context);
  return test_end();
}
