// The vector type of both AVX-512 files, as simd.h wants it.
#ifndef CKV_SCORE_AVX512_VEC_H
#define CKV_SCORE_AVX512_VEC_H

#include <immintrin.h>

#define LANES 16
#define VECS 2
#define TOKENS 6

typedef __m512 vec;
#define v_load(pointer) _mm512_loadu_ps(pointer)
#define v_store(pointer, x) _mm512_storeu_ps(pointer, x)
#define v_set1(x) _mm512_set1_ps(x)
#define v_add(a, b) _mm512_add_ps(a, b)
#define v_sub(a, b) _mm512_sub_ps(a, b)
#define v_mul(a, b) _mm512_mul_ps(a, b)
#define v_div(a, b) _mm512_div_ps(a, b)
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define v_max(a, b) _mm512_max_ps(a, b)
#define v_min(a, b) _mm512_min_ps(a, b)
#define v_abs(x) _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x)
#define v_copysign(a, b) _mm512_or_ps(a, _mm512_and_ps(_mm512_set1_ps(-0.0f), b))
#define v_exponent(x) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 23))
#define v_sum(x) _mm512_reduce_add_ps(x)

#endif
