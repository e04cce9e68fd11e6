// NEON: 16 rows x 4 tokens in 16 accumulators; a vector of four key elements serves four steps.
#include "../arch.h"
#include "kernels.h"

#if CKV_ARM64
#  include "../dtype.h"
#  include "ahead.h"

#  define TARGET
#  define GEMM_CUSTOM
#  include "neon_vec.h"

#  include <stddef.h>

// One element of TOKENS keys against `vecs` vectors of query rows; the lane is a constant.
#  define GEMM_STEP(lane)                                                               \
    do {                                                                                \
      _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {                          \
        const vec query = v_load(queries + ((ptrdiff_t)(k + lane) * vecs + v) * LANES); \
        _Pragma("GCC unroll 4") for (int t = 0; t < TOKENS; t++) {                      \
          sum[t][v] = vfmaq_laneq_f32(sum[t][v], query, key[t], lane);                  \
        }                                                                               \
      }                                                                                 \
    } while (0)

static inline __attribute__((always_inline)) void gemm(const float *queries, const float *keys,
                                                       int32_t dim, float *logits,
                                                       ckv_score_ahead *ahead, const int vecs) {
  vec sum[TOKENS][VECS];
  _Pragma("GCC unroll 4") for (int t = 0; t < TOKENS; t++) {
    _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) sum[t][v] = v_set1(0.0f);
  }
  for (int32_t k = 0; k < dim; k += 4) {
    ckv_score_ask(ahead);
    vec key[TOKENS];
    _Pragma("GCC unroll 4") for (int t = 0; t < TOKENS; t++) {
      key[t] = v_load(keys + (ptrdiff_t)t * dim + k);
    }
    GEMM_STEP(0);
    GEMM_STEP(1);
    GEMM_STEP(2);
    GEMM_STEP(3);
  }
  _Pragma("GCC unroll 4") for (int t = 0; t < TOKENS; t++) {
    _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {
      v_store(logits + (t * vecs + v) * LANES, sum[t][v]);
    }
  }
}

#  include "simd.h"
#  include "simd_rows.h"

INLINE void load_f32(const char *row, int32_t head_dim, float *out) {
  memcpy(out, row, (size_t)head_dim * sizeof *out);
}

INLINE uint16x4_t load_u16x4(const char *from) {
  uint16_t bits[4];
  memcpy(bits, from, sizeof bits);
  return vld1_u16(bits);
}

INLINE void load_f16(const char *row, int32_t head_dim, float *out) {
  int32_t k = 0;
  for (; k + 4 <= head_dim; k += 4) {
    v_store(out + k, vcvt_f32_f16(vreinterpret_f16_u16(load_u16x4(row + 2 * k))));
  }
  if (k < head_dim) ckv_row_to_f32(CKV_F16, row + 2 * k, head_dim - k, out + k);
}

INLINE void load_bf16(const char *row, int32_t head_dim, float *out) {
  int32_t k = 0;
  for (; k + 4 <= head_dim; k += 4) {
    v_store(out + k, vreinterpretq_f32_u32(vshll_n_u16(load_u16x4(row + 2 * k), 16)));
  }
  if (k < head_dim) ckv_row_to_f32(CKV_BF16, row + 2 * k, head_dim - k, out + k);
}

INLINE float block_scale(const char *block) {
  uint16_t half;
  memcpy(&half, block, sizeof half);
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
}

INLINE void store_i8(float *out, int8x16_t bytes, float scale) {
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes));
  const int16x8_t high = vmovl_high_s8(bytes);
  v_store(out, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), scale));
  v_store(out + 4, vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(low)), scale));
  v_store(out + 8, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), scale));
  v_store(out + 12, vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(high)), scale));
}

INLINE void load_q8_0(const char *row, int32_t head_dim, float *out) {
  for (int32_t k = 0; k < head_dim; k += 32, row += 34) {
    const float scale = block_scale(row);
    store_i8(out + k, vld1q_s8((const int8_t *)row + 2), scale);
    store_i8(out + k + 16, vld1q_s8((const int8_t *)row + 18), scale);
  }
}

INLINE void load_q4_0(const char *row, int32_t head_dim, float *out) {
  const int8x16_t eight = vdupq_n_s8(8);
  for (int32_t k = 0; k < head_dim; k += 32, row += 18) {
    const float scale = block_scale(row);
    const uint8x16_t bytes = vld1q_u8((const uint8_t *)row + 2);
    const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15)));
    store_i8(out + k, vsubq_s8(low, eight), scale);
    store_i8(out + k + 16, vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4)), eight), scale);
  }
}

// e4m3 has f16's layout with fewer bits: moved into place it is 2^-8 of the value.
INLINE void load_f8_e4m3(const char *row, int32_t head_dim, float *out) {
  const uint16x8_t magnitude = vdupq_n_u16(0x7f);
  int32_t k = 0;
  for (; k + 8 <= head_dim; k += 8) {
    const uint16x8_t wide = vmovl_u8(vld1_u8((const uint8_t *)row + k));
    const uint16x8_t bits = vandq_u16(wide, magnitude);
    const uint16x8_t sign = vshlq_n_u16(vbicq_u16(wide, magnitude), 8);
    const uint16x8_t nan = vshrq_n_u16(vceqq_u16(bits, magnitude), 1);
    const uint16x8_t half = vorrq_u16(vorrq_u16(vshlq_n_u16(bits, 7), sign), nan);
    const float16x8_t small = vreinterpretq_f16_u16(half);
    v_store(out + k, vmulq_n_f32(vcvt_f32_f16(vget_low_f16(small)), 0x1p8f));
    v_store(out + k + 4, vmulq_n_f32(vcvt_high_f32_f16(small), 0x1p8f));
  }
  if (k < head_dim) ckv_row_to_f32(CKV_F8_E4M3, row + k, head_dim - k, out + k);
}

#  define TILE(dtype, id)                                            \
    void ckv_score_tile_##dtype##_neon(const ckv_score_tile *tile);  \
    void ckv_score_tile_##dtype##_neon(const ckv_score_tile *tile) { \
      load_keys(tile, load_##dtype);                                 \
      score_rows(tile, (int32_t)ckv_row_bytes(id, tile->head_dim));  \
    }

TILE(f32, CKV_F32)
TILE(f16, CKV_F16)
TILE(bf16, CKV_BF16)
TILE(q8_0, CKV_Q8_0)
TILE(q4_0, CKV_Q4_0)
TILE(f8_e4m3, CKV_F8_E4M3)

extern const ckv_score_rows ckv_score_rows_neon;
const ckv_score_rows ckv_score_rows_neon = {
    .lanes = LANES, .block_rows = BLOCK_ROWS, .combine = combine, .mass = mass};
#endif
