// What token scores of tensor cores may be off by, relative to the float64 reference.
#ifndef CKV_CUDA_TEST_TOLERANCE_H
#define CKV_CUDA_TEST_TOLERANCE_H

#include <math.h>

#include "chunkkv.h"

#define F16_UNIT 0x1p-11
#define BF16_UNIT 0x1p-8
#define F16_SUBNORMAL 0x1p-25

// A score sums, over rows r, exp(s[r,t]) / sum over t of exp(s[r,t]).
// - Products are of bf16 where keys are bf16, else of f16; both are exact in f32. What is not of
//   that type is rounded to it once: queries of another type, and keys of f32 and of blocks (their
//   scale times an integer needs more than 11 bits). Each rounding moves a logit by its unit of
//   S >= scale * sum |q k|; f16 has a smallest step besides: F16_SUBNORMAL per element, times the
//   other side's elements, whose sum over a row is below sqrt(dim) times the row's length.
// - Tensor cores add in f32 and cut off what is below the largest term: 2^-22 S per 16 elements, and
//   the logit's own scale and difference to the log-sum-exp round once each: (dim / 16 + 4) 2^-22 S.
// - Soft-capping: tanh from one exponential and one quotient, 16 2^-24 of cap.
// - The exponent's error counts once above and once below the fraction: exp(2 E).
// - ex2.approx is good to 2^-22, above and below; sums over a row's tokens: each thread at most 512
//   terms in order, then a tree and the items (kv_len / 128) in order; sums over rows: rows terms.
// - Terms below 2^-126 may be 0: rows times heads of them.
typedef struct tolerance {
  double relative, absolute;
} tolerance;

static tolerance score_tolerance(int32_t key_dtype, int32_t query_dtype, int32_t dim,
                                 int32_t kv_len, int32_t rows, double scale, double cap,
                                 double key_norm, double query_norm) {
  const double size = scale * key_norm * query_norm;
  const bool bf16 = key_dtype == CKV_BF16;
  const bool exact_keys = bf16 || key_dtype == CKV_F16 || key_dtype == CKV_F8_E4M3;
  const bool exact_queries = query_dtype == (bf16 ? CKV_BF16 : CKV_F16);
  const double unit = bf16 ? BF16_UNIT : F16_UNIT;
  double exponent = 0x1p-22 * (dim / 16.0 + 4) * size + 0x1p-20 * cap;
  if (!exact_keys) exponent += unit * size;
  if (!exact_queries) exponent += unit * size;
  if (!bf16) exponent += F16_SUBNORMAL * scale * sqrt((double)dim) * (key_norm + query_norm);
  const double sums = 0x1p-24 * (512 + 64 + kv_len / 128.0 + rows);
  return (tolerance){expm1(2 * exponent) + 0x1p-21 + sums, rows * 0x1p-120};
}

// A spread score is a mean of token scores in f64, rounded to f32 once more on either side.
static tolerance spread_tolerance(tolerance of_tokens, int32_t spread) {
  return (tolerance){of_tokens.relative + (spread > 1 ? 0x1p-22 : 0), of_tokens.absolute};
}

// A chunk score sums those of up to `tokens` tokens in f64, and is rounded to f32 once on either side.
static tolerance chunk_tolerance(tolerance of_tokens, int32_t tokens) {
  return (tolerance){of_tokens.relative + 0x1p-22, of_tokens.absolute * tokens};
}

#endif
