#include "topk.h"

// Radix selection: each round looks at one byte, keeps the bucket that holds the k-th, and goes on
// inside it. Every round but the first reads only what is left.
uint64_t ckv_topk_threshold(const float *scores, int32_t n, int32_t k, uint64_t *scratch) {
  for (int32_t i = 0; i < n; i++) scratch[i] = ckv_rank(scores[i], i);
  for (int32_t shift = 56; shift >= 0 && n > 1; shift -= 8) {
    int32_t buckets[256] = {0};
    for (int32_t i = 0; i < n; i++) buckets[scratch[i] >> shift & 0xff]++;
    int32_t bucket = 0;
    while (k > buckets[bucket]) k -= buckets[bucket++];
    if (buckets[bucket] == n) continue;
    int32_t left = 0;
    for (int32_t i = 0; i < n; i++) {
      if ((int32_t)(scratch[i] >> shift & 0xff) == bucket) scratch[left++] = scratch[i];
    }
    n = left;
  }
  return scratch[0];
}

uint64_t ckv_next_rank(const float *scores, int32_t n, uint64_t rank) {
  uint64_t best = UINT64_MAX;
  for (int32_t i = 0; i < n; i++) {
    const uint64_t r = ckv_rank(scores[i], i);
    if (r > rank && r < best) best = r;
  }
  return best;
}
