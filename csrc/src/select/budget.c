#include "budget.h"

#include <math.h>

int32_t ckv_budget_for(double keep, int32_t kv_len) {
  if (!(keep > 0 && keep <= 1) || kv_len < 0) return -1;
  // 1e-9: 0.7 * 100 is 69.99999999999999 in binary and means 70.
  const double tokens = floor(keep * kv_len + 1e-9);
  return tokens < 1 ? 1 : (int32_t)tokens;
}

ckv_budget ckv_budget_split(const ckv_params *params, int32_t n) {
  const int32_t window = params->window < n ? params->window : n;
  ckv_budget split = {.len = n - window, .rest = params->budget - window, .newest = n - window};
  if (split.rest < 0) {
    split.rest = 0;
    // A ceiling is a ceiling; only the paper's rule keeps the window whatever the budget is.
    if (params->fill == CKV_FILL_EXACT) split.newest = n - params->budget;
  }
  return split;
}

int32_t ckv_keep_range(int32_t *indices, int32_t count, int32_t begin, int32_t end) {
  for (int32_t t = begin; t < end; t++) indices[count++] = t;
  return count;
}

int32_t ckv_best_run(const float *scores, int32_t begin, int32_t end, int32_t length) {
  double sum = 0;
  for (int32_t t = begin; t < begin + length; t++) sum += scores[t];
  double best = sum;
  int32_t best_begin = begin;
  for (int32_t t = begin + length; t < end; t++) {
    sum += (double)scores[t] - scores[t - length];
    if (sum > best) {
      best = sum;
      best_begin = t - length + 1;
    }
  }
  return best_begin;
}
