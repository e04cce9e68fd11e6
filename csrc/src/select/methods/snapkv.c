// snapkv: each kv head keeps its own tokens with the most window attention, after average pooling
// over neighbouring tokens. Based on SnapKV (arXiv 2404.14469, section 4).
#include "snapkv.h"

#include <stddef.h>

#include "../budget.h"
#include "../topk.h"

// Pooling pads with zeros that count, as kvpress and the paper's code do.
static void pool(const float *in, float *out, int32_t len, int32_t width, double scale) {
  const int32_t radius = width / 2;
  for (int32_t t = 0; t < len; t++) {
    const int32_t begin = t - radius > 0 ? t - radius : 0;
    const int32_t end = t + radius + 1 < len ? t + radius + 1 : len;
    double sum = 0;
    for (int32_t i = begin; i < end; i++) sum += in[i];
    out[t] = (float)(sum * scale / width);
  }
}

void ckv_snapkv_finish(const ckv_finish *f) {
  const double mean = 1.0 / ((double)f->group * f->window);
  for (int32_t h = 0; h < f->num_kv_heads; h++) {
    pool(f->mass + (int64_t)h * f->stride, f->scores + (int64_t)h * f->stride, f->len,
         f->params->pool_size, mean);
  }
}

int32_t ckv_snapkv_select(const ckv_choice *choice) {
  const ckv_budget budget = ckv_budget_split(choice->params, choice->kv_len);
  const int32_t k = budget.rest < budget.len ? budget.rest : budget.len;
  int32_t count = 0;
  if (k > 0) {
    const uint64_t last = ckv_topk_threshold(choice->scores, budget.len, k, choice->scratch);
    for (int32_t t = 0; t < budget.len; t++) {
      if (ckv_rank(choice->scores[t], t) <= last) choice->indices[count++] = t;
    }
  }
  return ckv_keep_range(choice->indices, count, budget.newest, choice->kv_len);
}

int64_t ckv_snapkv_scratch(const ckv_params *params, int32_t n) {
  (void)params;
  return n;
}

const ckv_method_ops ckv_method_snapkv = {
    .score_heads = CKV_HEADS_PER_KV,
    .kept_heads = CKV_HEADS_PER_KV,
    .finish = ckv_snapkv_finish,
    .select = ckv_snapkv_select,
    .scratch = ckv_snapkv_scratch,
};
