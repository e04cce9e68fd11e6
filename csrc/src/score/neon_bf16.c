// NEON with BFDOT: bf16 keys against bf16 queries, two products per lane and instruction. Both are
// read as they are; queries of other dtypes use the f32 kernels.
#include "../arch.h"
#include "kernels.h"

#if CKV_ARM64
#  include "../../include/chunkkv.h"

#  define TARGET __attribute__((target("arch=armv8.2-a+bf16")))
#  define GEMM_CUSTOM
#  include "ahead.h"
#  include "neon_vec.h"

#  include <stddef.h>
#  include <string.h>

// One pair of elements of TOKENS keys against `vecs` vectors of query rows.
#  define GEMM_STEP(lane)                                                      \
    do {                                                                       \
      _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {                 \
        const bfloat16x8_t query = vreinterpretq_bf16_f32(                     \
            v_load(queries + ((ptrdiff_t)(k / 2 + lane) * vecs + v) * LANES)); \
        _Pragma("GCC unroll 4") for (int t = 0; t < TOKENS; t++) {             \
          sum[t][v] = vbfdotq_lane_f32(sum[t][v], query, key[t], lane);        \
        }                                                                      \
      }                                                                        \
    } while (0)

// The instruction takes subnormals as 0 and rounds its sum of two products to odd.
static inline __attribute__((always_inline)) TARGET void gemm(const float *queries,
                                                              const float *keys, int32_t dim,
                                                              float *logits, ckv_score_ahead *ahead,
                                                              const int vecs) {
  vec sum[TOKENS][VECS];
  _Pragma("GCC unroll 4") for (int t = 0; t < TOKENS; t++) {
    _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) sum[t][v] = v_set1(0.0f);
  }
  for (int32_t k = 0; k < dim; k += 4) {
    ckv_score_ask(ahead);
    bfloat16x4_t key[TOKENS];
    _Pragma("GCC unroll 4") for (int t = 0; t < TOKENS; t++) {
      key[t] = vreinterpret_bf16_f32(vld1_f32(keys + (ptrdiff_t)t * dim + k / 2));
    }
    GEMM_STEP(0);
    GEMM_STEP(1);
  }
  _Pragma("GCC unroll 4") for (int t = 0; t < TOKENS; t++) {
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

TARGET void ckv_score_pairs_bf16_neon(const ckv_score_tile *tile);
TARGET void ckv_score_pairs_bf16_neon(const ckv_score_tile *tile) {
  load_keys(tile, load_pairs);
  score_rows(tile, (int32_t)ckv_row_bytes(CKV_BF16, tile->head_dim));
}
#endif
