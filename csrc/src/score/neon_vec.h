// The vector type of both NEON files, as simd.h wants it.
#ifndef CKV_SCORE_NEON_VEC_H
#define CKV_SCORE_NEON_VEC_H

#include <arm_neon.h>

#define LANES 4
#define VECS 4
#define TOKENS 4

typedef float32x4_t vec;
#define v_load(pointer) vld1q_f32(pointer)
#define v_store(pointer, x) vst1q_f32(pointer, x)
#define v_set1(x) vdupq_n_f32(x)
#define v_add(a, b) vaddq_f32(a, b)
#define v_sub(a, b) vsubq_f32(a, b)
#define v_mul(a, b) vmulq_f32(a, b)
#define v_div(a, b) vdivq_f32(a, b)
#define v_fma(a, b, c) vfmaq_f32(c, a, b)
#define v_max(a, b) vmaxq_f32(a, b)
#define v_min(a, b) vminq_f32(a, b)
#define v_abs(x) vabsq_f32(x)
#define v_copysign(a, b) vbslq_f32(vdupq_n_u32(0x80000000u), b, a)
#define v_exponent(x) vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), 23))
#define v_sum(x) vaddvq_f32(x)

#endif
