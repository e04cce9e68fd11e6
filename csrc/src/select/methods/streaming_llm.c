// streaming_llm: the first num_sinks tokens (attention sinks) and the newest ones fill the budget.
// Based on StreamingLLM (arXiv 2309.17453, section 3). Reads no scores.
#include <stddef.h>

#include "../budget.h"
#include "method.h"

static int32_t select_sinks_and_newest(const ckv_choice *choice) {
  const int32_t n = choice->kv_len;
  const int32_t budget = choice->params->budget;
  if (budget >= n) return ckv_keep_range(choice->indices, 0, 0, n);
  // The newest token always stays: decoding goes on from it.
  const int32_t sinks = choice->params->num_sinks < budget ? choice->params->num_sinks : budget - 1;
  const int32_t count = ckv_keep_range(choice->indices, 0, 0, sinks);
  return ckv_keep_range(choice->indices, count, n - (budget - sinks), n);
}

const ckv_method_ops ckv_method_streaming_llm = {
    .score_heads = CKV_HEADS_NONE,
    .kept_heads = CKV_HEADS_SHARED,
    .select = select_sinks_and_newest,
};
