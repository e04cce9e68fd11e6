// score_chunks on the device against the serial float64 kernels of the CPU.
#ifndef CKV_CUDA_TEST_CHUNK_CASES_H
#define CKV_CUDA_TEST_CHUNK_CASES_H

#include "score_cases.h"

static double worst_chunk;  // error in units of its bound

static int64_t max_chunks_of(const problem *p) {
  const int64_t len = p->keys.kv_len > p->params.window ? p->keys.kv_len - p->params.window : 0;
  return (len + p->params.chunk_size - 1) / p->params.chunk_size;
}

static void compare_chunks(const problem *p, const float *want, const float *found,
                           const char *text) {
  const tolerance bound = chunk_tolerance(bound_of(p), p->params.chunk_size);
  const int64_t chunks = max_chunks_of(p);
  double worst = 0;
  int64_t at = 0;
  for (int64_t i = 0; i < p->keys.batch * chunks; i++) {
    const int64_t first = i % chunks * p->params.chunk_size;
    const bool scored = first < len_of(&p->keys, (int32_t)(i / chunks)) - p->params.window;
    const double allowed = scored ? (double)want[i] * bound.relative + bound.absolute : 0;
    const double error = fabs((double)found[i] - (double)want[i]);
    const double ratio = error == 0 ? 0 : error / allowed;
    if (ratio <= worst) continue;
    worst = isnan(ratio) ? INFINITY : ratio;
    at = i;
  }
  CHECK(worst <= 1, "%s: %g of the bound at %lld: expected %g but found %g", text, worst,
        (long long)at, (double)want[at], (double)found[at]);
  worst_chunk = fmax(worst_chunk, worst);
}

static void check_score_chunks(const problem *p) {
  char text[300], shape[200];
  describe_problem(p, shape, sizeof shape);
  snprintf(text, sizeof text, "score_chunks, chunk %d, reduce %d, %s", p->params.chunk_size,
           p->params.chunk_reduce, shape);
  const int64_t count = p->keys.batch * max_chunks_of(p), bytes = count * (int64_t)sizeof(float);
  float *want = host_alloc(bytes);
  CHECK(ckv_score_chunks(reference, &p->params, &p->queries, &p->keys, want, count) == CKV_OK,
        "%s: %s", text, ckv_context_error(reference));

  const ckv_kv_view keys = device_kv(&p->keys);
  const ckv_query_view queries = device_queries(&p->queries);
  const ckv_layer layer = {sizeof layer, 0, &queries, &keys, NULL};
  random_workspace(&p->params, &layer, 1);
  float *found = host_alloc(bytes), *again = host_alloc(bytes);
  for (int round = 0; round < 2; round++) {
    float *chunk_scores = device_space(bytes, 0);
    const ckv_status status =
        finished(ckv_score_chunks(device, &p->params, &queries, &keys, chunk_scores, count));
    CHECK(status == CKV_OK, "%s: %s", text, ckv_context_error(device));
    download(round ? again : found, chunk_scores, bytes);
  }
  compare_chunks(p, want, found, text);
  CHECK(memcmp(found, again, (size_t)bytes) == 0, "%s: other bits the second time", text);
  device_reset(text);
  free(found);
  free(again);
  free(want);
}

// Chunks of all sizes, around a tile's 128 keys and its half among them.
static problem chunk_problem(int32_t dim, int64_t most_steps) {
  const int32_t window = test_int(0, 1) ? 32 : test_int(1, 64);
  const int32_t lengths[] = {window, window + 1, 127 + window, 128 + window, 129 + window, 4097};
  const int32_t pick = test_int(0, 9);
  const int32_t n = pick < 6 ? lengths[pick] : test_int(1, 3000);
  int32_t group = test_int(1, 8), heads = test_int(1, 4);
  int32_t batch = test_int(0, 1) ? 1 : test_int(2, 4);
  while ((int64_t)batch * heads * group * window * n * dim > most_steps &&
         batch * heads * group > 1) {
    if (batch > 1) {
      batch--;
    } else if (heads > 1) {
      heads--;
    } else {
      group--;
    }
  }
  const int32_t dtype = test_int(0, 7) ? test_int(CKV_F16, CKV_BF16) : CKV_F32;
  problem p = make_problem(dtype, test_int(0, 3) ? dtype : test_int(0, 2), dim, heads, group, batch,
                           n, window);
  const int32_t chunks[] = {4, 5, 10, 10, 11, 16, 20, 63, 64, 65, 128, 129, 512, 513};
  p.params.chunk_size = test_int(0, 3) ? chunks[test_int(0, 13)] : test_int(1, 600);
  p.params.spread = random_spread();
  p.params.chunk_reduce = test_int(0, 7) ? test_int(0, 1) : CKV_REDUCE_MAX;
  if (test_int(0, 3) == 0) p.params.scale = 0.05f + 0.2f * test_float();
  if (test_int(0, 3) == 0) p.params.logit_softcap = 5 + 50 * test_float();
  return p;
}

// What one pass over the keys is for, on Hopper: chunks of 8 and 10 and their multiples, full and
// broken tiles of 16 of them, more rows than a unit has, logits far apart.
static problem one_pass_problem(int32_t dim, int64_t most_steps) {
  const int32_t dtype = test_int(CKV_F16, CKV_BF16);
  const int32_t window = test_int(0, 1) ? 32 : test_int(1, 64);
  const int32_t group = test_int(0, 3) ? 64 / window + 1 + test_int(0, 3) : test_int(1, 4);
  const int32_t chunks[] = {8, 10, 16, 20, 24, 30, 64, 160};
  const int32_t chunk = test_int(0, 1) ? 10 : chunks[test_int(0, 7)], tile = 16 * chunk;
  const int32_t lengths[] = {1,    chunk,    chunk + 1,    tile - 1,
                             tile, tile + 1, 5 * tile + 3, 40 * tile};
  const int32_t pick = test_int(0, 9);
  int32_t n = window + (pick < 8 ? lengths[pick] : test_int(1, 9000));
  if ((int64_t)group * window * n * dim > most_steps) n = window + test_int(1, tile + 1);
  int32_t heads = test_int(1, 5), batch = test_int(0, 1) ? 1 : test_int(2, 4);
  while ((int64_t)batch * heads * group * window * n * dim > most_steps && batch * heads > 1) {
    if (batch > 1) {
      batch--;
    } else {
      heads--;
    }
  }
  plain_rows = true;
  problem p = make_problem(dtype, test_int(0, 2) ? dtype : test_int(0, 2), dim, heads, group, batch,
                           n, window);
  plain_rows = false;
  p.params.chunk_size = chunk;
  p.params.chunk_reduce = test_int(0, 3) ? CKV_REDUCE_SUM : CKV_REDUCE_MEAN;
  if (test_int(0, 3) == 0) p.params.scale = test_int(0, 1) ? 3 : 0.05f + 0.2f * test_float();
  if (test_int(0, 3) == 0) p.params.logit_softcap = 5 + 50 * test_float();
  return p;
}

static void test_chunks(bool quick) {
  static const int32_t DIMS[] = {40, 64, 80, 96, 128, 128, 256};
  worst_chunk = 0;
  const int before = test_failed;
  for (int32_t round = 0; round < (quick ? 4 : 20); round++) {
    for (int32_t d = 0; d < 7; d++) {
      problem p = chunk_problem(DIMS[d], quick ? 30000000 : 1000000000);
      check_score_chunks(&p);
      free_problem(&p);
      if (DIMS[d] > 128) continue;
      p = one_pass_problem(DIMS[d], quick ? 30000000 : 1000000000);
      check_score_chunks(&p);
      free_problem(&p);
    }
  }
  printf("chunks: %d failed, worst error %.3f of its bound\n", test_failed - before, worst_chunk);
}

#endif
