#include "chunk_scores.h"

#include "../../include/chunkkv.h"

void ckv_reduce_chunks(const float *scores, int32_t len, int32_t chunk_size, int32_t reduce,
                       float *chunk_scores) {
  for (int32_t chunk = 0, begin = 0; begin < len; chunk++) {
    const int32_t end = len - begin > chunk_size ? begin + chunk_size : len;
    double sum = 0;
    float most = scores[begin];
    for (int32_t t = begin; t < end; t++) {
      sum += scores[t];
      most = scores[t] > most ? scores[t] : most;
    }
    if (reduce == CKV_REDUCE_MEAN) sum /= end - begin;
    chunk_scores[chunk] = reduce == CKV_REDUCE_MAX ? most : (float)sum;
    begin = end;
  }
}
