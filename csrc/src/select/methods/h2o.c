// h2o: each kv head keeps its heavy hitters, the tokens with the most attention summed over all
// queries so far, and as many of the newest tokens. Based on H2O (arXiv 2306.14048, section 4.1).
#include <stddef.h>

#include "../budget.h"
#include "../topk.h"
#include "method.h"

static int32_t select_heavy_and_newest(const ckv_choice *choice) {
  const int32_t n = choice->kv_len, budget = choice->params->budget;
  if (budget >= n) return ckv_keep_range(choice->indices, 0, 0, n);
  // An odd one is newest: decoding goes on from the newest token, which always stays.
  const int32_t heavy = budget / 2;
  const int32_t newest = n - (budget - heavy);
  int32_t count = 0;
  if (heavy > 0) {
    const uint64_t last = ckv_topk_threshold(choice->scores, newest, heavy, choice->scratch);
    for (int32_t t = 0; t < newest; t++) {
      if (ckv_rank(choice->scores[t], t) <= last) choice->indices[count++] = t;
    }
  }
  return ckv_keep_range(choice->indices, count, newest, n);
}

static int64_t scratch_per_token(const ckv_params *params, int32_t n) {
  (void)params;
  return n;
}

const ckv_method_ops ckv_method_h2o = {
    .score_heads = CKV_HEADS_PER_KV,
    .kept_heads = CKV_HEADS_PER_KV,
    .accumulates = true,
    .select = select_heavy_and_newest,
    .scratch = scratch_per_token,
};
