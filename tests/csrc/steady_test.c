// No allocation in the steady state: a second round finds all scratch memory as it was.
#include <string.h>

#include "context.h"
#include "test.h"

enum { N = 1000, WINDOW = 32, Q_HEADS = 4, KV_HEADS = 2, DIM = 32, BLOCK = 16 };

static float queries_data[Q_HEADS * WINDOW * DIM];
static float rows[KV_HEADS * (N + BLOCK) * DIM], scores_data[KV_HEADS * N];
static int32_t indices[KV_HEADS * N], lens[1], table[N / BLOCK + 1];

static void step(ckv_context *ctx, const ckv_params *params, const ckv_query_view *queries,
                 const ckv_kv_view *keys) {
  ckv_scores scores = {.struct_size = sizeof scores,
                       .batch = 1,
                       .num_heads = ckv_score_heads(params, KV_HEADS),
                       .kv_len = N,
                       .data = scores_data,
                       .count = KV_HEADS * N};
  ckv_kept kept = {sizeof kept, 1, ckv_kept_heads(params, KV_HEADS), N, indices, lens};
  CHECK(ckv_score(ctx, params, queries, keys, &scores) == CKV_OK, "%s", ctx->error);
  CHECK(ckv_select(ctx, params, &scores, &kept) == CKV_OK, "%s", ctx->error);
  CHECK(ckv_compact(ctx, keys, NULL, &kept) == CKV_OK, "%s", ctx->error);
  const ckv_layer layer = {sizeof layer, 0, queries, keys, NULL};
  CHECK(ckv_compress(ctx, params, &layer, 1, &kept) == CKV_OK, "%s", ctx->error);
  CHECK(ckv_select_layers(ctx, params, &layer, 1, &kept) == CKV_OK, "%s", ctx->error);
  CHECK(ckv_compact_layers(ctx, &layer, 1, &kept) == CKV_OK, "%s", ctx->error);
}

int main(void) {
  test_begin("steady");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) rows[i] = test_float();
  for (size_t i = 0; i < sizeof queries_data / sizeof *queries_data; i++) {
    queries_data[i] = test_float();
  }
  // Blocks that do not rise: their check needs memory too.
  for (int32_t i = 0; i <= N / BLOCK; i++) table[i] = N / BLOCK - i;
  const ckv_query_view queries = {.struct_size = sizeof queries,
                                  .batch = 1,
                                  .num_q_heads = Q_HEADS,
                                  .window = WINDOW,
                                  .head_dim = DIM,
                                  .data = queries_data,
                                  .size_bytes = sizeof queries_data,
                                  .stride_head = WINDOW * DIM * 4,
                                  .stride_row = DIM * 4};
  const ckv_kv_view keys = {.struct_size = sizeof keys,
                            .batch = 1,
                            .num_kv_heads = KV_HEADS,
                            .head_dim = DIM,
                            .kv_len = N,
                            .block_size = BLOCK,
                            .data = rows,
                            .size_bytes = sizeof rows,
                            .stride_head = DIM * 4,
                            .stride_token = KV_HEADS * DIM * 4,
                            .stride_block = BLOCK * KV_HEADS * DIM * 4,
                            .block_table = table,
                            .max_blocks = N / BLOCK + 1,
                            .num_blocks = N / BLOCK + 1};
  for (int32_t threads = 1; threads <= 3; threads++) {
    ckv_context_params context_params;
    ckv_context_default_params(&context_params);
    context_params.num_threads = threads;
    ckv_context *ctx = NULL;
    CHECK(ckv_context_create(&context_params, &ctx) == CKV_OK, "create");
    if (!ctx) continue;
    ckv_params params;
    ckv_default_params(&params);
    params.budget = 100;
    ckv_scratch before[CKV_SCRATCH_COUNT];
    for (int32_t method = CKV_METHOD_SNAPKV; method <= CKV_METHOD_PYRAMIDKV; method++) {
      params.method = method;
      step(ctx, &params, &queries, &keys);
    }
    memcpy(before, ctx->scratch, sizeof before);
    for (int32_t method = CKV_METHOD_SNAPKV; method <= CKV_METHOD_PYRAMIDKV; method++) {
      params.method = method;
      step(ctx, &params, &queries, &keys);
    }
    for (int32_t slot = 0; slot < CKV_SCRATCH_COUNT; slot++) {
      CHECK(before[slot].data == ctx->scratch[slot].data &&
                before[slot].bytes == ctx->scratch[slot].bytes,
            "scratch %d of %d threads grew", slot, threads);
    }
    ckv_context_free(ctx);
  }
  return test_end();
}
