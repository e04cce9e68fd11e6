// Element types: sizes, and exact conversions of single values and rows to f32.
#ifndef CKV_DTYPE_H
#define CKV_DTYPE_H

#include <stdint.h>
#include <string.h>

#include "../include/chunkkv.h"

static inline float ckv_bits_to_f32(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t ckv_f32_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float ckv_f16_to_f32(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return ckv_bits_to_f32(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude < 0x400u) {  // subnormal: magnitude * 2^-24, exact
    const float value = (float)magnitude * 0x1p-24f;
    return sign ? -value : value;
  }
  return ckv_bits_to_f32(sign | ((magnitude << 13) + ((127u - 15u) << 23)));
}

static inline float ckv_bf16_to_f32(uint16_t bits) { return ckv_bits_to_f32((uint32_t)bits << 16); }

// OCP e4m3fn: no infinities, 0x7f and 0xff are NaN.
static inline float ckv_f8_e4m3_to_f32(uint8_t bits) {
  const uint32_t sign = (uint32_t)(bits & 0x80u) << 24;
  const uint32_t magnitude = bits & 0x7fu;
  if (magnitude == 0x7fu) return ckv_bits_to_f32(sign | 0x7fc00000u);
  if (magnitude < 8u) {  // subnormal: magnitude * 2^-9
    const float value = (float)magnitude * 0x1p-9f;
    return sign ? -value : value;
  }
  return ckv_bits_to_f32(sign | ((magnitude << 20) + ((127u - 7u) << 23)));
}

// What the address of an element is a multiple of; blocks begin with an f16.
static inline int64_t ckv_element_alignment(int32_t dtype) {
  return dtype == CKV_F32 ? 4 : dtype == CKV_F8_E4M3 ? 1 : 2;
}

// One row of `elements` elements to f32; every dtype converts exactly. The dtype is known and
// divides the row.
void ckv_row_to_f32(int32_t dtype, const void *row, int32_t elements, float *out);

#endif
