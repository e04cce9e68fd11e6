// AVX-512 F/BW/DQ/VL: 32 rows x 6 tokens in 12 accumulators, as many as two FMAs a cycle need;
// more tokens are no faster and push more of the queries out of L1.
#include "../arch.h"
#include "kernels.h"

#if CKV_X86_64
#  include <immintrin.h>

#  include "../dtype.h"

#  define TARGET __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")))
#  include "avx512_vec.h"
#  include "simd.h"
#  include "simd_rows.h"

// The last elements of a row are read under a mask, so no load leaves the row.
INLINE __mmask16 tail_mask(int32_t left) {
  return (__mmask16)(left >= 16 ? 0xffff : (1 << left) - 1);
}

INLINE void load_f32(const char *row, int32_t head_dim, float *out) {
  memcpy(out, row, (size_t)head_dim * sizeof *out);
}

INLINE void load_f16(const char *row, int32_t head_dim, float *out) {
  for (int32_t k = 0; k < head_dim; k += 16) {
    const __mmask16 mask = tail_mask(head_dim - k);
    const __m256i bits = _mm256_maskz_loadu_epi16(mask, row + 2 * k);
    _mm512_mask_storeu_ps(out + k, mask, _mm512_cvtph_ps(bits));
  }
}

INLINE void load_bf16(const char *row, int32_t head_dim, float *out) {
  for (int32_t k = 0; k < head_dim; k += 16) {
    const __mmask16 mask = tail_mask(head_dim - k);
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row + 2 * k));
    _mm512_mask_storeu_ps(out + k, mask, _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)));
  }
}

INLINE vec block_scale(const char *block) {
  uint16_t half;
  memcpy(&half, block, sizeof half);
  return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

INLINE void store_i8(float *out, __m128i bytes, vec scale) {
  v_store(out, v_mul(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), scale));
}

INLINE __m128i load_16(const char *bytes) {
  return _mm_loadu_si128((const __m128i *)(const void *)bytes);
}

INLINE void load_q8_0(const char *row, int32_t head_dim, float *out) {
  for (int32_t k = 0; k < head_dim; k += 32, row += 34) {
    const vec scale = block_scale(row);
    store_i8(out + k, load_16(row + 2), scale);
    store_i8(out + k + 16, load_16(row + 18), scale);
  }
}

INLINE void load_q4_0(const char *row, int32_t head_dim, float *out) {
  const __m128i low_half = _mm_set1_epi8(15);
  const __m128i eight = _mm_set1_epi8(8);
  for (int32_t k = 0; k < head_dim; k += 32, row += 18) {
    const vec scale = block_scale(row);
    const __m128i bytes = load_16(row + 2);
    const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), low_half);
    store_i8(out + k, _mm_sub_epi8(_mm_and_si128(bytes, low_half), eight), scale);
    store_i8(out + k + 16, _mm_sub_epi8(high, eight), scale);
  }
}

// e4m3 has f16's layout with fewer bits: moved into place it is 2^-8 of the value.
INLINE void load_f8_e4m3(const char *row, int32_t head_dim, float *out) {
  const __m256i magnitude = _mm256_set1_epi16(0x7f);
  for (int32_t k = 0; k < head_dim; k += 16) {
    const __mmask16 mask = tail_mask(head_dim - k);
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_maskz_loadu_epi8(mask, row + k));
    const __m256i bits = _mm256_and_si256(wide, magnitude);
    const __m256i sign = _mm256_slli_epi16(_mm256_andnot_si256(magnitude, wide), 8);
    const __m256i nan = _mm256_srli_epi16(_mm256_cmpeq_epi16(bits, magnitude), 1);
    const __m256i half = _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi16(bits, 7), sign), nan);
    _mm512_mask_storeu_ps(out + k, mask, v_mul(_mm512_cvtph_ps(half), v_set1(0x1p8f)));
  }
}

#  define TILE(dtype, id)                                                     \
    TARGET void ckv_score_tile_##dtype##_avx512(const ckv_score_tile *tile);  \
    TARGET void ckv_score_tile_##dtype##_avx512(const ckv_score_tile *tile) { \
      load_keys(tile, load_##dtype);                                          \
      score_rows(tile, (int32_t)ckv_row_bytes(id, tile->head_dim));           \
    }

TILE(f32, CKV_F32)
TILE(f16, CKV_F16)
TILE(bf16, CKV_BF16)
TILE(q8_0, CKV_Q8_0)
TILE(q4_0, CKV_Q4_0)
TILE(f8_e4m3, CKV_F8_E4M3)

extern const ckv_score_rows ckv_score_rows_avx512;
const ckv_score_rows ckv_score_rows_avx512 = {
    .lanes = LANES, .block_rows = BLOCK_ROWS, .combine = combine, .mass = mass};
#endif
