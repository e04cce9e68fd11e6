// AVX-512 BF16: bf16 keys against bf16 queries, two products per lane and instruction. Both are
// read as they are, so products are exact and only the f32 accumulation rounds. Queries of other
// dtypes use the f32 kernels: split in two bf16 parts they would need as many instructions.
#include "../arch.h"
#include "kernels.h"

#if CKV_X86_64
#  include "../../include/chunkkv.h"

#  define TARGET \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#  define GEMM_CUSTOM
#  include "ahead.h"
#  include "avx512_vec.h"

#  include <stddef.h>
#  include <string.h>

// TOKENS keys against `vecs` vectors of query rows, over pairs of elements. The instruction takes
// subnormal inputs as 0 and rounds to nearest after each of its two products.
static inline __attribute__((always_inline)) TARGET void gemm(const float *queries,
                                                              const float *keys, int32_t dim,
                                                              float *logits, ckv_score_ahead *ahead,
                                                              const int vecs) {
  vec sum[TOKENS][VECS];
  _Pragma("GCC unroll 16") for (int t = 0; t < TOKENS; t++) {
    _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) sum[t][v] = v_set1(0.0f);
  }
  _Pragma("GCC unroll 2") for (int32_t k = 0; k < dim / 2; k++) {
    if (k % 2 == 0) ckv_score_ask(ahead);
    CKV_SCORE_STEP();
    __m512bh query[VECS];
    _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {
      query[v] = (__m512bh)_mm512_loadu_si512(queries + ((ptrdiff_t)k * vecs + v) * LANES);
    }
    _Pragma("GCC unroll 16") for (int t = 0; t < TOKENS; t++) {
      int pair;
      memcpy(&pair, keys + (ptrdiff_t)t * dim + k, sizeof pair);
      const __m512bh key = (__m512bh)_mm512_set1_epi32(pair);
      _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {
        sum[t][v] = _mm512_dpbf16_ps(sum[t][v], key, query[v]);
      }
    }
  }
  _Pragma("GCC unroll 16") for (int t = 0; t < TOKENS; t++) {
    _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {
      v_store(logits + (t * vecs + v) * LANES, sum[t][v]);
    }
  }
}

#  include "simd.h"

// Pairs lie at the start of the row's place; load_keys fills up with zeros behind them.
INLINE void load_pairs(const char *row, int32_t head_dim, float *out) {
  memset(out, 0, (size_t)padded_dim(head_dim) * sizeof(uint16_t));
  memcpy(out, row, (size_t)head_dim * sizeof(uint16_t));
}

TARGET void ckv_score_pairs_bf16_avx512(const ckv_score_tile *tile);
TARGET void ckv_score_pairs_bf16_avx512(const ckv_score_tile *tile) {
  load_keys(tile, load_pairs);
  score_rows(tile, (int32_t)ckv_row_bytes(CKV_BF16, tile->head_dim));
}
#endif
