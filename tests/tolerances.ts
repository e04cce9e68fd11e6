/**
 * Every limit that tests allow, with where it comes from.
 *
 * @module
 */
import type { Isa } from "chunkkv";

/** Unit roundoff of f32: half of 2^-23. */
const UNIT_F32 = 2 ** -24;

/** Unit roundoff of bf16: half of 2^-7. */
const UNIT_BF16 = 2 ** -8;

/** Relative error of the vectorised exp, of the row's sum's reciprocal, and of storing f32. */
const EXP_ULPS = 8;

/** Weights below this may be flushed to zero: the smallest normal f32 is 1.2e-38. */
export const SMALLEST_WEIGHT = 1e-37;

/** What a token score's rounding depends on. */
export interface ScoreBound {
  /** Kernels that computed it. */
  isa: Isa;
  /** Terms of each dot product. */
  headDim: number;
  /** Tokens of the sequence: terms of each row's sum of exponentials. */
  tokens: number;
  /** Attention weights that are summed into one score. */
  weights: number;
  /** The largest `sum |q_j k_j| * scale` of any logit. */
  largestLogitSum: number;
  /** The soft cap of the logits; 0 means none. */
  logitSoftcap?: number;
  /** Whether keys are bf16: then the bf16 dot product is used where there is one. */
  bf16Keys?: boolean;
}

/**
 * Relative error bound of a token score.
 *
 * A sum of m products in f32 is off by at most `lambda * sqrt(m) * u * sum |terms|` but for a
 * probability of `2 exp(-lambda^2 / 2)` (Higham and Mary, 2019, theorem 2.4); `lambda` 6 makes that
 * 3e-8. An error of e in a logit is a factor of exp(e) in its weight; a weight is a quotient of two
 * of them, so twice. Weights are positive: sums of them keep the relative error, and add
 * `sqrt(terms) * u` of their own. A soft cap's tanh is off by a few ulps of 1, times the cap. A given
 * log-sum-exp is rounded to f32: one more u of its size, which is at most the largest logit's and
 * log(tokens). The bf16 dot product rounds the query to bf16 first: u_bf16 more per product.
 */
export function scoreTolerance(bound: ScoreBound): number {
  const lambda = 6;
  const perProduct = lambda * Math.sqrt(bound.headDim) * UNIT_F32 +
    (bound.bf16Keys && bound.isa.endsWith("_bf16") ? UNIT_BF16 : 0);
  const logit = perProduct * bound.largestLogitSum +
    EXP_ULPS * UNIT_F32 * (bound.logitSoftcap ?? 0) +
    UNIT_F32 * (bound.largestLogitSum + Math.log(bound.tokens + 1));
  const sums = lambda * (Math.sqrt(bound.tokens) + Math.sqrt(bound.weights)) * UNIT_F32;
  return Math.expm1(2 * logit) + sums + EXP_ULPS * UNIT_F32;
}

/**
 * Absolute difference of our snapkv token scores from kvpress's own (f32, at most 1). Its largest
 * distance from float64 is said in the manifest: 6e-8, half an ulp of 1. Ours is of the same kind,
 * 3e-8 where measured (serial and AVX2, all cases); 5e-7 is 4 ulps of 1 for both together.
 */
export const KVPRESS_TOKEN_SCORE = 5e-7;

/**
 * Relative difference of chunk scores from the golden ones, which are float64 of f32 inputs. The
 * largest measured is 5e-7 (serial and AVX2, all cases): rounding of the sum to f32 is 6e-8 of it,
 * rounding of logits the rest. Ten times that leaves room for other orders of summation, and is far
 * from what a wrong term would do: a window row that sees one key more changes scores by 1e-4.
 */
export const GOLDEN_CHUNK_SCORE = 5e-6;
