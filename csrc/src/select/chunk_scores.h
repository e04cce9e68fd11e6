#ifndef CKV_CHUNK_SCORES_H
#define CKV_CHUNK_SCORES_H

#include <stdint.h>

static inline int32_t ckv_num_chunks(int32_t len, int32_t chunk_size) {
  return len / chunk_size + (len % chunk_size != 0);
}

// Token scores [len] -> chunk scores [ckv_num_chunks(len, chunk_size)]. The last chunk may be short.
// reduce: ckv_chunk_reduce.
void ckv_reduce_chunks(const float *scores, int32_t len, int32_t chunk_size, int32_t reduce,
                       float *chunk_scores);

#endif
