// AVX2 + FMA + F16C: 16 rows x 6 tokens in 12 accumulators, two FMAs a cycle.
#include "../arch.h"
#include "kernels.h"

#if CKV_X86_64
#  include <immintrin.h>

#  include "../dtype.h"

#  define TARGET __attribute__((target("avx2,fma,f16c")))
#  define LANES 8
#  define VECS 2
#  define TOKENS 6

typedef __m256 vec;
#  define v_load(pointer) _mm256_loadu_ps(pointer)
#  define v_store(pointer, x) _mm256_storeu_ps(pointer, x)
#  define v_set1(x) _mm256_set1_ps(x)
#  define v_add(a, b) _mm256_add_ps(a, b)
#  define v_sub(a, b) _mm256_sub_ps(a, b)
#  define v_mul(a, b) _mm256_mul_ps(a, b)
#  define v_div(a, b) _mm256_div_ps(a, b)
#  define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#  define v_max(a, b) _mm256_max_ps(a, b)
#  define v_min(a, b) _mm256_min_ps(a, b)
#  define v_abs(x) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x)
#  define v_copysign(a, b) _mm256_or_ps(a, _mm256_and_ps(_mm256_set1_ps(-0.0f), b))
#  define v_exponent(x) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 23))

static inline __attribute__((always_inline)) TARGET float v_sum(vec x) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

#  include "simd.h"
#  include "simd_rows.h"

INLINE void load_f32(const char *row, int32_t head_dim, float *out) {
  memcpy(out, row, (size_t)head_dim * sizeof *out);
}

INLINE void load_f16(const char *row, int32_t head_dim, float *out) {
  int32_t k = 0;
  for (; k + 8 <= head_dim; k += 8) {
    v_store(out + k,
            _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(row + 2 * k))));
  }
  if (k < head_dim) ckv_row_to_f32(CKV_F16, row + 2 * k, head_dim - k, out + k);
}

INLINE void load_bf16(const char *row, int32_t head_dim, float *out) {
  int32_t k = 0;
  for (; k + 8 <= head_dim; k += 8) {
    const __m128i bits = _mm_loadu_si128((const __m128i *)(const void *)(row + 2 * k));
    v_store(out + k, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)));
  }
  if (k < head_dim) ckv_row_to_f32(CKV_BF16, row + 2 * k, head_dim - k, out + k);
}

INLINE vec block_scale(const char *block) {
  uint16_t half;
  memcpy(&half, block, sizeof half);
  return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

INLINE void store_i8(float *out, __m128i bytes, vec scale) {
  v_store(out, v_mul(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), scale));
  bytes = _mm_unpackhi_epi64(bytes, bytes);
  v_store(out + 8, v_mul(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), scale));
}

INLINE void load_q8_0(const char *row, int32_t head_dim, float *out) {
  for (int32_t k = 0; k < head_dim; k += 32, row += 34) {
    const vec scale = block_scale(row);
    store_i8(out + k, _mm_loadu_si128((const __m128i *)(const void *)(row + 2)), scale);
    store_i8(out + k + 16, _mm_loadu_si128((const __m128i *)(const void *)(row + 18)), scale);
  }
}

INLINE void load_q4_0(const char *row, int32_t head_dim, float *out) {
  const __m128i low_half = _mm_set1_epi8(15);
  const __m128i eight = _mm_set1_epi8(8);
  for (int32_t k = 0; k < head_dim; k += 32, row += 18) {
    const vec scale = block_scale(row);
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(row + 2));
    const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), low_half);
    store_i8(out + k, _mm_sub_epi8(_mm_and_si128(bytes, low_half), eight), scale);
    store_i8(out + k + 16, _mm_sub_epi8(high, eight), scale);
  }
}

// e4m3 has f16's layout with fewer bits: moved into place it is 2^-8 of the value.
INLINE void load_f8_e4m3(const char *row, int32_t head_dim, float *out) {
  const __m128i magnitude = _mm_set1_epi16(0x7f);
  const vec scale = v_set1(0x1p8f);
  int32_t k = 0;
  for (; k + 8 <= head_dim; k += 8) {
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(row + k));
    const __m128i wide = _mm_cvtepu8_epi16(bytes);
    const __m128i bits = _mm_and_si128(wide, magnitude);
    const __m128i sign = _mm_slli_epi16(_mm_andnot_si128(magnitude, wide), 8);
    const __m128i nan = _mm_srli_epi16(_mm_cmpeq_epi16(bits, magnitude), 1);
    const __m128i half = _mm_or_si128(_mm_or_si128(_mm_slli_epi16(bits, 7), sign), nan);
    v_store(out + k, v_mul(_mm256_cvtph_ps(half), scale));
  }
  if (k < head_dim) ckv_row_to_f32(CKV_F8_E4M3, row + k, head_dim - k, out + k);
}

#  define TILE(dtype, id)                                                   \
    TARGET void ckv_score_tile_##dtype##_avx2(const ckv_score_tile *tile);  \
    TARGET void ckv_score_tile_##dtype##_avx2(const ckv_score_tile *tile) { \
      load_keys(tile, load_##dtype);                                        \
      score_rows(tile, (int32_t)ckv_row_bytes(id, tile->head_dim));         \
    }

TILE(f32, CKV_F32)
TILE(f16, CKV_F16)
TILE(bf16, CKV_BF16)
TILE(q8_0, CKV_Q8_0)
TILE(q4_0, CKV_Q4_0)
TILE(f8_e4m3, CKV_F8_E4M3)

extern const ckv_score_rows ckv_score_rows_avx2;
const ckv_score_rows ckv_score_rows_avx2 = {
    .lanes = LANES, .block_rows = BLOCK_ROWS, .combine = combine, .mass = mass};
#endif
