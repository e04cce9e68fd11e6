// Every error bound that the C tests use, with its derivation. u = 2^-24 is the f32 rounding unit.
#ifndef CKV_TOLERANCES_H
#define CKV_TOLERANCES_H

#include <float.h>
#include <math.h>

#define F32_UNIT 0x1p-24
#define F64_UNIT 0x1p-53

// Vectorised 2^x: 0.75e-7 from the polynomial, 0.5 u from each rounding that matters of its
// evaluation (leading coefficient, last FMA, product with 2^n is exact): together below 4 u.
#define EXP_UNITS 4

// Attention mass of one token, f32 kernels against float64:
//   mass = sum over R rows of exp(s[r,t] - max[r]) / sum over t of exp(s[r,t] - max[r])
// - A logit s is head_dim FMAs, so it is off by at most head_dim u S, S = scale * max sum |q k|;
//   bf16 dot products round twice per pair and to odd, 2 u each: double that. The scale times
//   log2(e) is rounded (1 u S), the exponent's argument (1 u S, and 2 u S between tiles), and a
//   log-sum-exp handed in (1 u of its size). With tanh soft-capping 8 u cap more.
//   E = u (2 head_dim + 8) S + 8 u cap is the error of an exponent; it enters once above and once
//   below the fraction: factor exp(2 E).
// - Relative errors that do not grow with the logits: exp in the numerator, in the tiles' factors
//   and in the denominator (3 EXP_UNITS), a tile's sum of up to 96 weights (96 u), the compensated
//   sum over tiles (2 u), reciprocal and two products (4 u), the sum over rows (R u).
// - Weights below 2^-126 become 0, in a tile or by its factor: R 2^-124 absolutely.
static inline double mass_tolerance(double mass, double largest_logit, int head_dim, int rows,
                                    double cap) {
  const double exponent = F32_UNIT * ((2.0 * head_dim + 8) * largest_logit + 8 * cap);
  const double relative = expm1(2 * exponent) + F32_UNIT * (3 * EXP_UNITS + 96 + 2 + 4 + rows);
  return mass * relative + rows * 0x1p-124;
}

// The serial reference: the same in float64, and the rounding of its result to f32 (which may be
// subnormal).
static inline double serial_mass_tolerance(double mass, double largest_logit, int head_dim,
                                           int rows, int tokens, double cap) {
  const double exponent = F64_UNIT * ((2.0 * head_dim + 8) * largest_logit + 8 * cap);
  const double relative = expm1(2 * exponent) + F32_UNIT + F64_UNIT * (16.0 + rows + tokens);
  return mass * relative + 0x1p-149;
}

// exp(x) of one logit, seen through one row of one element with log_sum_exp 0: the product q k,
// the scale and the argument round once each (3 u |x|), 2^x has EXP_UNITS, and a sum of one is
// exact.
static inline double exp_tolerance(double x) {
  return exp(x) * (F32_UNIT * (3 * fabs(x) + EXP_UNITS) * 1.01) + 0x1p-124;
}

#endif
