// score against what the machine can do: milliseconds, GFLOP/s, GB/s and of_limit.
//   score_bench [--isa NAME] [--threads N] [--n N] [--window W] [--dtype NAME] [--layout NAME]
//               [--shape Q/KV/D] [--lse 1] [--runs N]
// Without arguments: the shapes, sizes and dtypes of the README's table.
// of_limit = limit time / our time; the limit is QK^T once at the measured FMA peak (bf16 keys, whose
// queries are bf16 too: the dot-product peak) or the keys once at the measured read bandwidth, whichever is longer.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "alloc.h"
#include "context.h"
#include "dispatch.h"
#include "dtype.h"
#include "limits_memory.h"
#include "score/score.h"

typedef struct settings {
  int32_t isa, threads, n, window, dtype, q_heads, kv_heads, head_dim, runs, batch;
  bool cells, lse;
} settings;

typedef struct machine {
  double gflops, dot_gflops, gbs;
} machine;

static uint32_t noise_state = 1;

static uint32_t noise(void) {
  noise_state = noise_state * 1664525u + 1013904223u;
  return noise_state >> 8;
}

// Random bits that are small finite numbers in every dtype.
static void fill(int32_t dtype, char *row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i++) row[i] = (char)noise();
  if (dtype == CKV_F32) {
    for (int64_t i = 0; i + 4 <= bytes; i += 4) {
      const float value = (float)(int32_t)noise() * 0x1p-23f - 1.0f;
      memcpy(row + i, &value, sizeof value);
    }
  }
  for (int64_t i = 1; (dtype == CKV_F16 || dtype == CKV_BF16) && i < bytes; i += 2) {
    row[i] = (char)((row[i] & 0x83) | (dtype == CKV_F16 ? 0x38 : 0x3c));
  }
  for (int64_t i = 0; dtype == CKV_F8_E4M3 && i < bytes; i++) row[i] &= (char)0xbf;
  const int64_t block = dtype == CKV_Q8_0 ? 34 : dtype == CKV_Q4_0 ? 18 : 0;
  for (int64_t i = 0; block && i < bytes; i += block) {
    row[i] = 0;
    row[i + 1] = 0x20;
  }
}

static int bench(const settings *s, const machine *m, ckv_context *ctx) {
  const int64_t row = ckv_row_bytes(s->dtype, s->head_dim);
  const int64_t key_bytes = row * s->kv_heads * s->n * s->batch;
  const int64_t query_count = (int64_t)s->q_heads * s->window * s->head_dim * s->batch;
  char *key_data = ckv_alloc((size_t)key_bytes);
  float *query_data = ckv_alloc(sizeof(float) * (size_t)query_count);
  float *mass = ckv_alloc(sizeof(float) * (size_t)s->kv_heads * (size_t)s->n * (size_t)s->batch);
  int32_t *cells = ckv_alloc(sizeof(int32_t) * (size_t)s->n * (size_t)s->batch);
  float *lse = ckv_alloc(sizeof(float) * (size_t)(s->batch * s->q_heads * s->window));
  if (!key_data || !query_data || !mass || !cells || !lse) return 1;
  fill(s->dtype, key_data, key_bytes);
  // As engines have them: of the keys' type where that is bf16, and f32 else.
  const int32_t query_dtype = s->dtype == CKV_BF16 ? CKV_BF16 : CKV_F32;
  const int64_t query_bytes = ckv_row_bytes(query_dtype, 1);
  fill(query_dtype, (char *)query_data, query_bytes * query_count);
  for (int64_t i = 0; i < s->batch * s->n; i++) cells[i] = (int32_t)i;
  for (int32_t i = 0; i < s->batch * s->q_heads * s->window; i++) lse[i] = 12;

  ckv_params params = {.struct_size = sizeof params, .window = s->window};
  const ckv_query_view queries = {.dtype = query_dtype,
                                  .batch = s->batch,
                                  .num_q_heads = s->q_heads,
                                  .window = s->window,
                                  .head_dim = s->head_dim,
                                  .data = query_data,
                                  .stride_batch = query_count / s->batch * query_bytes,
                                  .stride_head = (int64_t)s->window * s->head_dim * query_bytes,
                                  .stride_row = s->head_dim * query_bytes,
                                  .log_sum_exp = s->lse ? lse : NULL};
  ckv_kv_view keys = {.dtype = s->dtype,
                      .batch = s->batch,
                      .num_kv_heads = s->kv_heads,
                      .head_dim = s->head_dim,
                      .kv_len = s->n,
                      .data = key_data,
                      .size_bytes = key_bytes,
                      .stride_batch = key_bytes / s->batch,
                      .stride_head = row * s->n,
                      .stride_token = row};
  if (s->cells) {  // [cell][head][dim], as llama.cpp keeps them
    keys.block_size = 1;
    keys.block_table = cells;
    keys.max_blocks = s->n;
    keys.num_blocks = s->n * s->batch;
    keys.stride_block = row * s->kv_heads;
    keys.stride_head = row;
  }
  double best = 1e30;
  for (int32_t i = 0; i < s->runs; i++) {
    const double start = limits_now();
    const ckv_status status = ckv_score_mass(ctx, &params, &queries, &keys, mass);
    const double seconds = limits_now() - start;
    if (status) {
      fprintf(stderr, "%s\n", ctx->error);
      return 1;
    }
    if (seconds < best) best = seconds;
  }
  const double flops = 2.0 * s->batch * s->q_heads * s->window * s->n * s->head_dim;
  const bool dot = query_dtype == CKV_BF16 && m->dot_gflops > m->gflops;
  const double by_flops = flops / (dot ? m->dot_gflops : m->gflops) * 1e-9;
  const double by_bytes = (double)key_bytes / m->gbs * 1e-9;
  const double limit = by_flops > by_bytes ? by_flops : by_bytes;
  printf(
      "%-11s %2d thr %2d/%d/%-3d w %2d b %d n %6d %-7s %-5s%s %9.3f ms %7.1f GFLOP/s %6.2f GB/s "
      "of_limit %.3f\n",
      ckv_isa_name(ctx->isa), ckv_thread_pool_size(ctx->pool), s->q_heads, s->kv_heads, s->head_dim,
      s->window, s->batch, s->n, ckv_dtype_name(s->dtype), s->cells ? "cells" : "rows",
      s->lse ? " lse" : "", best * 1e3, flops / best * 1e-9, (double)key_bytes / best * 1e-9,
      limit / best);
  fflush(stdout);
  ckv_free(key_data);
  ckv_free(query_data);
  ckv_free(mass);
  ckv_free(cells);
  ckv_free(lse);
  return 0;
}

static int32_t named(const char *(*name_of)(int32_t), const char *name) {
  for (int32_t i = 0; name_of(i); i++) {
    if (strcmp(name_of(i), name) == 0) return i;
  }
  fprintf(stderr, "Expected a known name but found %s\n", name);
  exit(2);
}

static machine measure(ckv_context *ctx) {
  const int64_t bytes = (int64_t)256 << 20;
  char *memory = ckv_alloc((size_t)bytes);
  if (!memory) exit(1);
  memset(memory, 1, (size_t)bytes);
  const machine m = {.gflops = limits_fma_gflops(ctx->pool, ctx->isa),
                     .dot_gflops = limits_dot_gflops(ctx->pool, ctx->isa),
                     .gbs = limits_read_gbs(ctx->pool, memory, bytes)};
  ckv_free(memory);
  printf("%s, %d threads: FMA %.1f, dot %.1f GFLOP/s, read %.1f GB/s\n", ckv_isa_name(ctx->isa),
         ckv_thread_pool_size(ctx->pool), m.gflops, m.dot_gflops, m.gbs);
  return m;
}

static int run_all(settings s, const machine *m, ckv_context *ctx) {
  static const int32_t shapes[][3] = {
      {32, 8, 128}, {8, 1, 128}, {28, 4, 128}, {4, 1, 256}, {9, 3, 64}};
  int failed = 0;
  for (int32_t n = 4096; n <= 32768; n *= 8) {
    for (int32_t dtype = 0; ckv_dtype_name(dtype); dtype++) {
      s.n = n;
      s.dtype = dtype;
      failed |= bench(&s, m, ctx);
    }
  }
  s.dtype = CKV_F16;
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
    s.q_heads = shapes[i][0];
    s.kv_heads = shapes[i][1];
    s.head_dim = shapes[i][2];
    for (s.n = 1024; s.n <= 131072; s.n *= 8) failed |= bench(&s, m, ctx);
  }
  return failed;
}

int main(int argc, char **argv) {
  settings s = {.isa = CKV_ISA_BEST,
                .window = 32,
                .q_heads = 32,
                .kv_heads = 8,
                .head_dim = 128,
                .runs = 5,
                .batch = 1};
  for (int i = 1; i + 1 < argc; i += 2) {
    const char *key = argv[i], *value = argv[i + 1];
    if (!strcmp(key, "--isa")) s.isa = named(ckv_isa_name, value);
    if (!strcmp(key, "--dtype")) s.dtype = named(ckv_dtype_name, value);
    if (!strcmp(key, "--threads")) s.threads = atoi(value);
    if (!strcmp(key, "--n")) s.n = atoi(value);
    if (!strcmp(key, "--window")) s.window = atoi(value);
    if (!strcmp(key, "--batch")) s.batch = atoi(value);
    if (!strcmp(key, "--runs")) s.runs = atoi(value);
    if (!strcmp(key, "--lse")) s.lse = atoi(value) != 0;
    if (!strcmp(key, "--layout")) s.cells = strcmp(value, "cells") == 0;
    if (!strcmp(key, "--shape") &&
        sscanf(value, "%d/%d/%d", &s.q_heads, &s.kv_heads, &s.head_dim) != 3) {
      return 2;
    }
  }
  ckv_context_params cp;
  ckv_context_default_params(&cp);
  cp.num_threads = s.threads;
  cp.isa = s.isa;
  ckv_context *ctx;
  if (ckv_context_create(&cp, &ctx) != CKV_OK) return 1;
  const machine m = measure(ctx);
  const int failed = s.n ? bench(&s, &m, ctx) : run_all(s, &m, ctx);
  ckv_context_free(ctx);
  return failed;
}
