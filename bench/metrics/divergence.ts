/**
 * How far one model's next-token distribution is from another's.
 *
 * @module
 */

/**
 * Log-probabilities of raw logits, in double precision.
 *
 * @param logits One per vocabulary entry.
 * @returns log softmax of them.
 */
export function logSoftmax(logits: Float32Array): Float64Array {
  let max = -Infinity;
  for (const logit of logits) max = Math.max(max, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
  const shift = max + Math.log(sum);
  return Float64Array.from(logits, (logit) => logit - shift);
}

/**
 * Kullback-Leibler divergence KL(p || q) in nats.
 *
 * @param p Log-probabilities of the reference.
 * @param q Log-probabilities of the other.
 * @returns The divergence; 0 for equal distributions.
 */
export function klDivergence(p: Float64Array, q: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < p.length; i++) {
    const probability = Math.exp(p[i]!);
    if (probability > 0) sum += probability * (p[i]! - q[i]!);
  }
  return sum;
}
