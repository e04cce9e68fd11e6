// compact against what the machine can do: milliseconds, GB/s and of_limit, in place.
//   compact_bench [--threads N] [--n N] [--shape KV/D] [--dtype NAME] [--layout NAME] [--runs N]
//                 [--chunk C] [--keep PERCENT] [--per-head 1] [--mib N] [--batch N]
//   layouts: contiguous, cells (a block table of neighbours), shuffled (of strangers), nhd and hnd
//   (shuffled pages of 16 tokens)
// Whole chunks at random places are kept, and caches of `mib` MiB of moved rows in all take turns,
// so that rows come from memory. of_limit = limit time / our time; the limit is the kept rows'
// bytes, once read and once written, at the bandwidth of the faster of memcpy and streaming stores.
// of_runs: the plainest copy of the very same runs takes the limit's place.
#include <stdbool.h>
#include <stdio.h>

#include "alloc.h"
#include "context.h"
#include "limits_memory.h"
#include "limits_runs.h"
#include "test.h"

typedef struct settings {
  int32_t threads, n, dtype, kv_heads, head_dim, runs, chunk, keep, mib, batch;
  bool per_head;
  const char *layout;
} settings;

static void set_layout(const settings *s, ckv_kv_view *v, int32_t *table) {
  const int64_t row = ckv_row_bytes(s->dtype, s->head_dim);
  v->stride_head = row * s->n;
  v->stride_token = row;
  v->stride_batch = row * s->n * s->kv_heads;
  if (!strcmp(s->layout, "contiguous")) return;
  const bool pages = !strcmp(s->layout, "nhd") || !strcmp(s->layout, "hnd");
  v->block_size = pages ? 16 : 1;
  v->stride_block = row * s->kv_heads * v->block_size;
  v->stride_head = strcmp(s->layout, "hnd") ? row : row * v->block_size;
  v->stride_token = strcmp(s->layout, "hnd") ? row * s->kv_heads : row;
  v->max_blocks = s->n / v->block_size;
  v->num_blocks = v->max_blocks * s->batch;
  v->block_table = table;
  for (int32_t i = 0; i < v->num_blocks; i++) table[i] = i;
  for (int32_t i = v->num_blocks - 1; strcmp(s->layout, "cells") && i > 0; i--) {
    const int32_t j = test_int(0, i), swap = table[i];
    table[i] = table[j];
    table[j] = swap;
  }
}

// Whole chunks at random, then the window: what selection returns.
static void choose(const settings *s, ckv_kept *kept) {
  const int32_t budget = (int32_t)((int64_t)s->n * s->keep / 100), window = 32;
  const int32_t chunks = (s->n - window) / s->chunk;
  for (int32_t set = 0; set < kept->batch * kept->num_heads; set++) {
    int32_t *out = kept->indices + (int64_t)set * kept->capacity,
            need = (budget - window) / s->chunk;
    int32_t count = 0;
    for (int32_t c = 0; c < chunks; c++) {
      if (test_int(1, chunks - c) > need) continue;
      need--;
      for (int32_t t = 0; t < s->chunk; t++) out[count++] = c * s->chunk + t;
    }
    for (int32_t t = s->n - window; t < s->n; t++) out[count++] = t;
    kept->lens[set / kept->num_heads] = count;
  }
}

static int bench(const settings *s, ckv_context *ctx) {
  const int64_t row = ckv_row_bytes(s->dtype, s->head_dim);
  const int64_t cache = row * s->kv_heads * s->n * s->batch;
  const int64_t moved = cache * s->keep / 100, budget = (int64_t)s->mib << 20;
  const int64_t caches = budget / (2 * moved) + 1;
  char *data = ckv_alloc((size_t)(cache * caches));
  int32_t *table = ckv_alloc(sizeof(int32_t) * (size_t)s->n * (size_t)s->batch);
  const int32_t sets = s->per_head ? s->kv_heads : 1;
  ckv_kept kept = {sizeof kept, s->batch, sets, s->n, NULL, NULL};
  kept.indices = ckv_alloc(sizeof(int32_t) * (size_t)s->n * (size_t)(s->batch * sets));
  kept.lens = ckv_alloc(sizeof(int32_t) * (size_t)s->batch);
  if (!data || !table || !kept.indices || !kept.lens) return 1;
  memset(data, 1, (size_t)(cache * caches));
  ckv_kv_view view = {.struct_size = sizeof view,
                      .dtype = s->dtype,
                      .batch = s->batch,
                      .num_kv_heads = s->kv_heads,
                      .head_dim = s->head_dim,
                      .kv_len = s->n,
                      .size_bytes = cache};
  set_layout(s, &view, table);
  choose(s, &kept);
  const int64_t half = cache * caches < 1 << 28 ? cache * caches / 2 : 1 << 27;
  const double gbs = limits_copy_gbs(ctx->pool, data, data + half, half);
  double best = 1e30;
  for (int32_t i = 0; i < s->runs; i++) {
    view.data = data + cache * (i % caches);
    const double start = limits_now();
    const ckv_status status = ckv_compact(ctx, &view, NULL, &kept);
    const double seconds = limits_now() - start;
    if (status) {
      fprintf(stderr, "%s\n", ctx->error);
      return 1;
    }
    if (i >= caches && seconds < best) best = seconds;
  }
  ckv_kv_view *views = ckv_alloc(sizeof view * (size_t)caches);
  if (!views) return 1;
  for (int64_t i = 0; i < caches; i++) {
    views[i] = view;
    views[i].data = data + cache * i;
  }
  const double plain = limits_runs_seconds(ctx->pool, views, (int32_t)caches, &kept, 0.2) / 2;
  int64_t rows = 0;
  for (int32_t b = 0; b < s->batch; b++) rows += kept.lens[b];
  const double bytes = 2.0 * (double)(rows * s->kv_heads * row);
  printf(
      "%d thr %2d/%-3d b %d n %6d %-7s %-10s%s %4d caches %8.1f us %6.2f of %5.2f GB/s "
      "of_limit %.3f of_runs %.3f\n",
      ckv_thread_pool_size(ctx->pool), s->kv_heads, s->head_dim, s->batch, s->n,
      ckv_dtype_name(s->dtype), s->layout, s->per_head ? " per head" : "", (int)caches, best * 1e6,
      bytes / best * 1e-9, gbs, bytes / gbs * 1e-9 / best, plain / best);
  fflush(stdout);
  ckv_free(data);
  ckv_free(views);
  ckv_free(table);
  ckv_free(kept.indices);
  ckv_free(kept.lens);
  return 0;
}

int main(int argc, char **argv) {
  settings s = {.threads = 1,
                .n = 4096,
                .dtype = CKV_F16,
                .kv_heads = 8,
                .head_dim = 128,
                .runs = 200,
                .chunk = 10,
                .keep = 10,
                .mib = 128,
                .batch = 1,
                .layout = "contiguous"};
  for (int i = 1; i + 1 < argc; i += 2) {
    const char *key = argv[i], *value = argv[i + 1];
    if (!strcmp(key, "--threads")) s.threads = atoi(value);
    if (!strcmp(key, "--n")) s.n = atoi(value);
    if (!strcmp(key, "--runs")) s.runs = atoi(value);
    if (!strcmp(key, "--chunk")) s.chunk = atoi(value);
    if (!strcmp(key, "--keep")) s.keep = atoi(value);
    if (!strcmp(key, "--mib")) s.mib = atoi(value);
    if (!strcmp(key, "--batch")) s.batch = atoi(value);
    if (!strcmp(key, "--per-head")) s.per_head = atoi(value) != 0;
    if (!strcmp(key, "--layout")) s.layout = value;
    if (!strcmp(key, "--shape") && sscanf(value, "%d/%d", &s.kv_heads, &s.head_dim) != 2) return 2;
    for (int32_t d = 0; !strcmp(key, "--dtype") && ckv_dtype_name(d); d++) {
      if (!strcmp(value, ckv_dtype_name(d))) s.dtype = d;
    }
  }
  test_state = 1;
  ckv_context_params params;
  ckv_context_default_params(&params);
  params.num_threads = s.threads;
  ckv_context *ctx;
  if (ckv_context_create(&params, &ctx) != CKV_OK) return 1;
  const int failed = bench(&s, ctx);
  ckv_context_free(ctx);
  return failed;
}
