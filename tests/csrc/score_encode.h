// The element types in the test's own words: slow, in float64, sharing no code with the library.
#ifndef CKV_SCORE_ENCODE_H
#define CKV_SCORE_ENCODE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "chunkkv.h"

static inline double decode_float(uint32_t bits, int exponent_bits, int mantissa_bits, bool inf) {
  const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
  const int exponent = (int)(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = bits >> (exponent_bits + mantissa_bits) & 1 ? -1.0 : 1.0;
  const int top = (1 << exponent_bits) - 1;
  if (exponent == top && inf) return mantissa ? NAN : sign * INFINITY;
  if (exponent == top && mantissa == (1u << mantissa_bits) - 1) return NAN;
  if (exponent == 0) return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * ldexp((double)(mantissa | 1u << mantissa_bits), exponent - bias - mantissa_bits);
}

static inline double decode_f16(uint16_t bits) { return decode_float(bits, 5, 10, true); }
static inline double decode_bf16(uint16_t bits) { return decode_float(bits, 8, 7, true); }
static inline double decode_f8(uint8_t bits) { return decode_float(bits, 4, 3, false); }

// The nearest representable value by bisection over the ordered bit patterns of one sign.
static inline uint32_t encode_small(double x, uint32_t top, double (*decode)(uint32_t)) {
  uint32_t low = 0, high = top;  // patterns of finite magnitudes
  const double magnitude = fabs(x);
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    if (decode(middle) <= magnitude)
      low = middle;
    else
      high = middle;
  }
  return magnitude - decode(low) <= decode(high) - magnitude ? low : high;
}

static inline double magnitude_f16(uint32_t bits) { return decode_f16((uint16_t)bits); }
static inline double magnitude_bf16(uint32_t bits) { return decode_bf16((uint16_t)bits); }
static inline double magnitude_f8(uint32_t bits) { return decode_f8((uint8_t)bits); }

static inline uint16_t encode_f16(double x) {
  if (isnan(x)) return 0x7e00;
  if (isinf(x)) return (uint16_t)(x < 0 ? 0xfc00 : 0x7c00);
  return (uint16_t)(encode_small(x, 0x7bff, magnitude_f16) | (signbit(x) ? 0x8000u : 0));
}

static inline uint16_t encode_bf16(double x) {
  if (isnan(x)) return 0x7fc0;
  if (isinf(x)) return (uint16_t)(x < 0 ? 0xff80 : 0x7f80);
  return (uint16_t)(encode_small(x, 0x7f7f, magnitude_bf16) | (signbit(x) ? 0x8000u : 0));
}

// Writes n values as one row and replaces them by what the row holds.
static inline void encode_row(int32_t dtype, double *x, int32_t n, char *row) {
  for (int32_t j = 0; j < n && dtype == CKV_F32; j++) {
    const float value = (float)x[j];
    memcpy(row + 4 * j, &value, 4);
    x[j] = (double)value;
  }
  for (int32_t j = 0; j < n && (dtype == CKV_F16 || dtype == CKV_BF16); j++) {
    const uint16_t bits = dtype == CKV_F16 ? encode_f16(x[j]) : encode_bf16(x[j]);
    memcpy(row + 2 * j, &bits, 2);
    x[j] = dtype == CKV_F16 ? decode_f16(bits) : decode_bf16(bits);
  }
  for (int32_t j = 0; j < n && dtype == CKV_F8_E4M3; j++) {
    const uint32_t bits = isnan(x[j]) ? 0x7f : encode_small(x[j], 0x7e, magnitude_f8);
    row[j] = (char)(bits | (signbit(x[j]) ? 0x80u : 0));
    x[j] = decode_f8((uint8_t)row[j]);
  }
  const int32_t levels = dtype == CKV_Q8_0 ? 127 : 8;
  for (int32_t block = 0; block < n / 32 && (dtype == CKV_Q8_0 || dtype == CKV_Q4_0); block++) {
    char *out = row + (int64_t)block * (dtype == CKV_Q8_0 ? 34 : 18);
    double *in = x + (int64_t)block * 32, most = 0;
    for (int32_t j = 0; j < 32; j++) most = isnan(in[j]) ? NAN : fmax(most, fabs(in[j]));
    const uint16_t half = encode_f16(isnan(in[0]) ? NAN : most / levels);
    const double scale = decode_f16(half);
    memcpy(out, &half, 2);
    if (dtype == CKV_Q4_0) memset(out + 2, 0, 16);
    for (int32_t j = 0; j < 32; j++) {
      double q = scale > 0 ? rint(in[j] / scale) : 0;
      if (!(q > -levels)) q = -levels;
      if (q > levels - (levels == 8)) q = levels - (levels == 8);
      if (dtype == CKV_Q8_0) out[2 + j] = (char)(int)q;
      if (dtype == CKV_Q4_0)
        out[2 + j % 16] = (char)(out[2 + j % 16] | (int)(q + 8) << (j / 16 * 4));
      in[j] = q * scale;
    }
  }
}

#endif
