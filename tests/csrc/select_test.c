// select: radix top-k against sorting, whole selections against a naive rule-by-rule one.
#include <string.h>

#include "chunkkv.h"
#include "select/topk.h"
#include "test.h"

#define MAX_N 700

static int by_rank(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

// Few distinct values make ties; negative ones and both zeros are legal scores.
static float random_score(int kind) {
  static const float SPECIAL[] = {0.0f, -0.0f, 1e-38f, -1.5f, 3e38f, 1e-45f};
  if (kind == 0) return test_float();
  if (kind == 1) return (float)test_int(0, 3);
  return SPECIAL[test_int(0, 5)];
}

static void topk_equals_sorting(void) {
  static float scores[MAX_N];
  static uint64_t scratch[MAX_N], sorted[MAX_N];
  for (int round = 0; round < 300; round++) {
    const int32_t n = test_int(1, MAX_N), kind = test_int(0, 2);
    for (int32_t i = 0; i < n; i++) {
      scores[i] = random_score(kind);
      sorted[i] = ckv_rank(scores[i], i);
    }
    qsort(sorted, (size_t)n, sizeof sorted[0], by_rank);
    const int32_t k = test_int(1, n);
    const uint64_t last = ckv_topk_threshold(scores, n, k, scratch);
    CHECK(last == sorted[k - 1], "n %d, k %d, kind %d", n, k, kind);
    const uint64_t next = ckv_next_rank(scores, n, last);
    CHECK(next == (k < n ? sorted[k] : UINT64_MAX), "n %d, k %d, kind %d", n, k, kind);
  }
}

static void rank_orders_scores_then_indices(void) {
  CHECK(ckv_rank(2.0f, 9) < ckv_rank(1.0f, 0), "higher score first");
  CHECK(ckv_rank(1.0f, 3) < ckv_rank(1.0f, 4), "lower index first");
  CHECK(ckv_rank(-1.0f, 0) < ckv_rank(-2.0f, 0), "negative scores too");
  CHECK(ckv_rank(-0.0f, 0) < ckv_rank(0.0f, 1), "both zeros are equal");
  CHECK(ckv_rank(3e38f, 0) > CKV_RANK_NONE, "nothing is as good as none");
}

// The rule as the design states it, one token at a time.
static int32_t naive_chunkkv(const ckv_params *p, const float *scores, int32_t n, char *keep) {
  const int32_t w = p->window < n ? p->window : n, len = n - w, c = p->chunk_size;
  const int32_t num_chunks = (len + c - 1) / c;
  static char used[MAX_N];
  memset(keep, 0, (size_t)n);
  memset(used, 0, sizeof used);
  int32_t newest = w;
  if (p->budget < w && p->fill == CKV_FILL_EXACT) newest = p->budget;
  for (int32_t t = n - newest; t < n; t++) keep[t] = 1;
  int32_t whole = p->budget > w ? (p->budget - w) / c : 0;
  int32_t left = p->budget > w ? p->budget - w : 0;
  for (int32_t step = 0; step < num_chunks && (whole > 0 || p->fill == CKV_FILL_EXACT); step++) {
    int32_t best = -1;
    double best_sum = 0;
    for (int32_t j = 0; j < num_chunks; j++) {
      double sum = 0;
      for (int32_t t = j * c; t < (j + 1) * c && t < len; t++) sum += scores[t];
      if (!used[j] && (best < 0 || (float)sum > (float)best_sum)) best = j, best_sum = sum;
    }
    used[best] = 1;
    const int32_t begin = best * c, end = begin + c < len ? begin + c : len;
    if (whole > 0) {
      whole--;
      left -= end - begin;
      for (int32_t t = begin; t < end; t++) keep[t] = 1;
      continue;
    }
    const int32_t length = left < end - begin ? left : end - begin;
    int32_t run = begin;
    double run_sum = -1;
    for (int32_t t = begin; length > 0 && t + length <= end; t++) {
      double sum = 0;
      for (int32_t i = t; i < t + length; i++) sum += scores[i];
      if (sum > run_sum) run = t, run_sum = sum;
    }
    for (int32_t t = run; t < run + length; t++) keep[t] = 1;
    left -= length;
  }
  int32_t count = 0;
  for (int32_t t = 0; t < n; t++) count += keep[t];
  return count;
}

static void chunkkv_follows_the_rule(void) {
  ckv_context_params context_params;
  ckv_context_default_params(&context_params);
  context_params.num_threads = 1;
  ckv_context *context = NULL;
  CHECK(ckv_context_create(&context_params, &context) == CKV_OK, "create");
  static float data[MAX_N];
  static int32_t indices[MAX_N];
  static char keep[MAX_N];
  for (int round = 0; round < 600; round++) {
    ckv_params p;
    ckv_default_params(&p);
    const int32_t n = test_int(1, MAX_N);
    p.window = test_int(1, 64);
    p.chunk_size = test_int(1, round % 5 == 0 ? MAX_N : 24);
    p.budget = test_int(1, n + 20);
    p.fill = test_int(0, 1);
    // Multiples of 1/8: every sum is exact, so ties are ties in any order of adding.
    for (int32_t t = 0; t < n; t++) data[t] = (float)test_int(0, 7) / 8;
    int32_t len = -1;
    ckv_scores scores = {sizeof scores, 1, 1, n, NULL, data, n};
    ckv_kept kept = {sizeof kept, 1, 1, MAX_N, indices, &len};
    CHECK(ckv_select(context, &p, &scores, &kept) == CKV_OK, "%s", ckv_context_error(context));
    const int32_t expected = naive_chunkkv(&p, data, n, keep);
    int same = len == expected;
    for (int32_t i = 0; same && i < len; i++) {
      same = keep[indices[i]] && (i == 0 || indices[i] > indices[i - 1]);
    }
    CHECK(same, "n %d, w %d, c %d, budget %d, fill %d: kept %d of %d", n, p.window, p.chunk_size,
          p.budget, p.fill, len, expected);
    if (p.fill == CKV_FILL_EXACT) {
      CHECK(len == (p.budget < n ? p.budget : n), "n %d, budget %d: kept %d", n, p.budget, len);
    }
    CHECK(len <= ckv_kept_capacity(&p, n), "capacity");
  }
  ckv_context_free(context);
}

static void budget_for_a_ratio(void) {
  CHECK(ckv_budget_for(0.7, 100) == 70, "0.7 * 100 means 70 and is a little less in binary");
  CHECK(ckv_budget_for(0.1, 3124) == 312, "rounded down");
  CHECK(ckv_budget_for(1.0, 5) == 5, "all");
  CHECK(ckv_budget_for(0.001, 5) == 1, "at least one");
  CHECK(ckv_budget_for(0.0, 5) == -1, "nothing kept is no ratio");
  CHECK(ckv_budget_for(1.01, 5) == -1, "more than all is no ratio");
  CHECK(ckv_budget_for(-0.1, 5) == -1, "negative");
  volatile double zero = 0;
  CHECK(ckv_budget_for(zero / zero, 5) == -1, "NaN");
}

int main(void) {
  test_begin("select");
  topk_equals_sorting();
  rank_orders_scores_then_indices();
  chunkkv_follows_the_rule();
  budget_for_a_ratio();
  return test_end();
}
