// score on the device against the serial float64 kernels of the CPU.
#ifndef CKV_CUDA_TEST_SCORE_CASES_H
#define CKV_CUDA_TEST_SCORE_CASES_H

#include "problem.h"
#include "tolerance.h"

static double worst_score;  // error in units of its bound

static double scale_of(const problem *p) {
  return p->params.scale > 0 ? (double)p->params.scale : 1 / sqrt((double)p->keys.head_dim);
}

static void describe_problem(const problem *p, char *text, size_t bytes) {
  const ckv_kv_view *k = &p->keys;
  snprintf(text, bytes,
           "%s %s, queries %s, %s, batch %d%s, heads %d x %d, dim %d, n %d, window %d, spread %d%s",
           ckv_method_name(p->params.method), ckv_dtype_name(k->dtype),
           ckv_dtype_name(p->queries.dtype), LAYOUT_NAMES[p->layout], k->batch,
           k->kv_lens ? " ragged" : "", k->num_kv_heads, p->queries.num_q_heads / k->num_kv_heads,
           k->head_dim, k->kv_len, p->params.window, p->params.spread,
           p->queries.log_sum_exp ? ", lse" : "");
}

static double row_element(int32_t dtype, const char *row, int32_t j) {
  if (dtype != CKV_Q8_0 && dtype != CKV_Q4_0) {
    return decode_element(dtype, row + j * element_bytes(dtype));
  }
  const char *block = row + (int64_t)(j / 32) * (dtype == CKV_Q8_0 ? 34 : 18);
  const int32_t i = j % 32;
  const double scale = decode_element(CKV_F16, block);
  if (dtype == CKV_Q8_0) return scale * block[2 + i];
  const uint8_t byte = (uint8_t)block[2 + i % 16];
  return scale * ((i < 16 ? byte & 15 : byte >> 4) - 8);
}

// log-sum-exp of every window row: the definition. Slow, so for small problems.
static float *solve_log_sum_exp(const problem *p) {
  const ckv_query_view *q = &p->queries;
  const int32_t group = q->num_q_heads / p->keys.num_kv_heads, dim = q->head_dim;
  const double cap = (double)p->params.logit_softcap;
  const int64_t rows = (int64_t)q->batch * q->num_q_heads * q->window;
  float *lse = host_alloc(rows * (int64_t)sizeof(float));
  for (int64_t r = 0; r < rows; r++) {
    const int32_t i = (int32_t)(r % q->window), h = (int32_t)(r / q->window % q->num_q_heads);
    const int32_t b = (int32_t)(r / q->window / q->num_q_heads);
    const int32_t visible = len_of(&p->keys, b) - q->window + i + 1;
    double sum = 0;  // logits of these problems are small: no maximum needed
    for (int32_t t = 0; t < visible; t++) {
      double dot = 0;
      for (int32_t j = 0; j < dim; j++) {
        dot += row_element(q->dtype, query_row(p, b, h, i), j) *
               row_element(p->keys.dtype, key_row(p, b, h / group, t), j);
      }
      dot *= scale_of(p);
      sum += exp(cap > 0 ? cap * tanh(dot / cap) : dot);
    }
    lse[r] = sum > 0 ? (float)log(sum) : 0;
  }
  return lse;
}

static ckv_scores scores_for(const problem *p, float *data) {
  const int32_t heads = ckv_score_heads(&p->params, p->keys.num_kv_heads);
  return (ckv_scores){sizeof(ckv_scores),
                      p->keys.batch,
                      heads,
                      p->keys.kv_len,
                      p->keys.kv_lens,
                      data,
                      (int64_t)p->keys.batch * heads * p->keys.kv_len};
}

static tolerance bound_of(const problem *p) {
  const tolerance of_tokens =
      score_tolerance(p->keys.dtype, p->queries.dtype, p->keys.head_dim, p->keys.kv_len,
                      p->queries.num_q_heads * p->params.window, scale_of(p),
                      (double)p->params.logit_softcap, p->key_norm, p->query_norm);
  return spread_tolerance(of_tokens, p->params.spread);
}

// Half of the time none; the most, and what no thread block divides by, among the rest.
static int32_t random_spread(void) {
  if (test_int(0, 1)) return 1;
  return test_int(0, 3) ? test_int(2, 64) : 64;
}

// Every score within its bound; scores of no token are 0.
static void compare_scores(const problem *p, const float *want, const float *found) {
  char text[256];
  describe_problem(p, text, sizeof text);
  const ckv_scores s = scores_for(p, NULL);
  const int32_t group = p->queries.num_q_heads / p->keys.num_kv_heads;
  tolerance bound = bound_of(p);
  if (p->params.method == CKV_METHOD_SNAPKV) bound.absolute /= (double)group * p->params.window;
  double worst = 0;
  int64_t at = 0;
  for (int64_t i = 0; i < s.count; i++) {
    const int32_t b = (int32_t)(i / s.kv_len / s.num_heads), t = (int32_t)(i % s.kv_len);
    const bool scored = t < len_of(&p->keys, b) - p->params.window;
    const double allowed = scored ? (double)want[i] * bound.relative + bound.absolute : 0;
    const double error = fabs((double)found[i] - (double)want[i]);
    const double ratio = error == 0 ? 0 : error / allowed;
    if (ratio <= worst) continue;
    worst = isnan(ratio) ? INFINITY : ratio;
    at = i;
  }
  CHECK(worst <= 1, "%s: %g of the bound at %lld: expected %g but found %g", text, worst,
        (long long)at, (double)(s.count ? want[at] : 0), (double)(s.count ? found[at] : 0));
  worst_score = fmax(worst_score, worst);
}

static void check_score(problem *p) {
  char text[256];
  describe_problem(p, text, sizeof text);
  ckv_scores want = scores_for(p, NULL);
  const int64_t bytes = want.count * (int64_t)sizeof(float);
  want.data = host_alloc(bytes);
  CHECK(ckv_score(reference, &p->params, &p->queries, &p->keys, &want) == CKV_OK, "%s: %s", text,
        ckv_context_error(reference));

  const ckv_kv_view keys = device_kv(&p->keys);
  const ckv_query_view queries = device_queries(&p->queries);
  const ckv_layer layer = {sizeof layer, 0, &queries, &keys, NULL};
  random_workspace(&p->params, &layer, 1);
  float *found = host_alloc(bytes), *again = host_alloc(bytes);
  for (int round = 0; round < 2; round++) {
    ckv_scores scores = want;
    scores.kv_lens = keys.kv_lens;
    scores.data = device_space(bytes, 0);
    const ckv_status status = finished(ckv_score(device, &p->params, &queries, &keys, &scores));
    CHECK(status == CKV_OK, "%s: %s", text, ckv_context_error(device));
    download(round ? again : found, scores.data, bytes);
  }
  compare_scores(p, want.data, found);
  CHECK(memcmp(found, again, (size_t)bytes) == 0, "%s: other bits the second time", text);
  device_reset(text);
  free(found);
  free(again);
  free(want.data);
}

static int32_t odd_length(int32_t window) {
  const int32_t lengths[] = {1, window - 1, window, window + 1, 127 + window, 128, 129, 1000, 4097};
  const int32_t pick = test_int(0, 11);
  const int32_t n = pick < 9 ? lengths[pick] : test_int(1, 3000);
  return n < 1 ? 1 : n;
}

// The reference takes head_dim steps per row and token: what is too much becomes fewer heads.
static void score_problem(int32_t dtype, int32_t dim, int32_t method, int64_t most_steps) {
  const int32_t window = test_int(0, 1) ? 32 : test_int(1, 64);
  const int32_t n = odd_length(window);
  int32_t group = test_int(1, 8), heads = test_int(1, 4),
          batch = test_int(0, 1) ? 1 : test_int(2, 4);
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
  const int32_t query_dtype = dtype == CKV_BF16 && test_int(0, 1) ? CKV_BF16 : test_int(0, 2);
  problem p = make_problem(dtype, query_dtype, dim, heads, group, batch, n, window);
  p.params.method = method;
  p.params.spread = random_spread();  // snapkv takes no notice
  p.params.pool_size = 2 * test_int(0, 4) + 1;
  if (test_int(0, 3) == 0) p.params.scale = 0.05f + 0.2f * test_float();
  if (test_int(0, 3) == 0) p.params.logit_softcap = 5 + 50 * test_float();
  if ((int64_t)batch * heads * group * window * n * dim < 20000000 && test_int(0, 2) == 0) {
    p.queries.log_sum_exp = solve_log_sum_exp(&p);
  }
  check_score(&p);
  free_problem(&p);
}

static void test_score(bool quick) {
  static const int32_t DIMS[] = {40, 64, 80, 96, 128, 256};
  worst_score = 0;
  for (int32_t dtype = 0; ckv_dtype_name(dtype); dtype++) {
    const int before = test_failed;
    for (int32_t d = 0; d < 6; d++) {
      if (ckv_row_bytes(dtype, DIMS[d]) < 0) continue;
      for (int32_t round = 0; round < (quick ? 1 : 12); round++) {
        score_problem(dtype, DIMS[d], test_int(0, 1) ? CKV_METHOD_CHUNKKV : CKV_METHOD_SNAPKV,
                      quick ? 30000000 : 1000000000);
      }
    }
    printf("score %s: %d failed\n", ckv_dtype_name(dtype), test_failed - before);
  }
  printf("score: worst error %.3f of its bound\n", worst_score);
}

#endif
