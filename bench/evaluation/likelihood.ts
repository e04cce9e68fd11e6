/**
 * Logits to log-likelihoods and divergences, many rows of a whole vocabulary at a time.
 *
 * @module
 */

/** Rows of logits. */
export interface LogitRows {
  /** `[rows, vocabSize]`. */
  readonly logits: Float32Array;
  readonly vocabSize: number;
}

// exp(x) for x <= 0 is by far the most of the work: a table in steps of ln 2 / 128 and three terms of
// the series within a step, wrong by less than 4e-11 of the value.
const STEPS_PER_UNIT = 128 / Math.LN2;
const LOWEST = -87;
const TABLE = Float64Array.from(
  { length: Math.ceil(-LOWEST * STEPS_PER_UNIT) + 2 },
  (_, i) => Math.exp(-i / STEPS_PER_UNIT),
);

/**
 * The exponential of a number of at most 0.
 *
 * @param x The number.
 * @returns e^x; 0 below -87, which in sums with a 1 in them is lost anyway.
 */
export function expNegative(x: number): number {
  if (x < LOWEST) return 0;
  const i = (-x * STEPS_PER_UNIT) | 0;
  const r = x + i / STEPS_PER_UNIT;
  return TABLE[i]! * (1 + r * (1 + r * (0.5 + r / 6)));
}

/** The number of rows. */
export function rowCount({ logits, vocabSize }: LogitRows): number {
  return logits.length / vocabSize;
}

/** What log softmax subtracts from the logits of a row: the log of the sum of their exponentials. */
export function logSumExp({ logits, vocabSize }: LogitRows, row: number): number {
  const from = row * vocabSize;
  const to = from + vocabSize;
  let max = -Infinity;
  for (let i = from; i < to; i++) if (logits[i]! > max) max = logits[i]!;
  let sum = 0;
  for (let i = from; i < to; i++) sum += expNegative(logits[i]! - max);
  return max + Math.log(sum);
}

/** The token with the highest logit of a row; of several the first. */
export function likeliest({ logits, vocabSize }: LogitRows, row: number): number {
  const from = row * vocabSize;
  let best = 0;
  for (let i = 1; i < vocabSize; i++) if (logits[from + i]! > logits[from + best]!) best = i;
  return best;
}

/** The log-likelihood of a token by a row. */
export function logLikelihood(rows: LogitRows, row: number, token: number): number {
  return rows.logits[row * rows.vocabSize + token]! - logSumExp(rows, row);
}

/** Distributions that others are compared with. */
export class ReferenceRows {
  readonly #rows: LogitRows;
  readonly #probabilities: Float32Array;
  readonly #logSums: Float64Array;

  /** @param rows The logits; kept, not copied. */
  constructor(rows: LogitRows) {
    const count = rowCount(rows);
    this.#rows = rows;
    this.#logSums = Float64Array.from({ length: count }, (_, row) => logSumExp(rows, row));
    this.#probabilities = new Float32Array(rows.logits.length);
    for (let row = 0, i = 0; row < count; row++) {
      const logSum = this.#logSums[row]!;
      for (const end = i + rows.vocabSize; i < end; i++) {
        this.#probabilities[i] = expNegative(Math.min(0, rows.logits[i]! - logSum));
      }
    }
  }

  /**
   * Mean KL(reference || other) over all rows, in nats; exactly 0 for the same logits.
   *
   * @param other As many rows.
   */
  meanDivergence(other: LogitRows): number {
    const { logits, vocabSize } = this.#rows;
    const q = other.logits;
    const count = rowCount(this.#rows);
    if (q.length !== logits.length) {
      throw new RangeError(`Expected ${logits.length} logits but found ${q.length}`);
    }
    let total = 0;
    for (let row = 0; row < count; row++) {
      // sum of p (log p - log q), the log sums taken out of it.
      let difference = 0;
      let mass = 0;
      for (let i = row * vocabSize, end = i + vocabSize; i < end; i++) {
        const p = this.#probabilities[i]!;
        difference += p * (logits[i]! - q[i]!);
        mass += p;
      }
      total += difference + mass * (logSumExp(other, row) - this.#logSums[row]!);
    }
    return total / count;
  }
}
