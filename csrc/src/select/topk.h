// The k best of n scores in O(n), ties to the lower index.
#ifndef CKV_TOPK_H
#define CKV_TOPK_H

#include <stdint.h>
#include <string.h>

// A score and its index as one number: smaller is better, and no two are equal.
static inline uint64_t ckv_rank(float score, int32_t index) {
  uint32_t bits;
  score += 0.0f;  // -0 ties with +0
  memcpy(&bits, &score, sizeof bits);
  // Flip so that unsigned order is descending float order.
  bits = bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
  return (uint64_t)bits << 32 | (uint32_t)index;
}

// Better than every score: nothing is <= it, and ckv_next_rank finds the best from it.
#define CKV_RANK_NONE 0

// The rank of the k-th best score: score i is among the k best if ckv_rank(scores[i], i) <= it.
// 1 <= k <= n; no NaN; scratch holds n entries.
uint64_t ckv_topk_threshold(const float *scores, int32_t n, int32_t k, uint64_t *scratch);

// The best rank worse than `rank`, UINT64_MAX if there is none.
uint64_t ckv_next_rank(const float *scores, int32_t n, uint64_t rank);

#endif
