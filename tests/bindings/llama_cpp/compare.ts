/**
 * Comparing logits, and index sets to try.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { LlamaContext } from "chunkkv/llama-cpp";

/** Fails unless both have the same bits. */
export function assertSameBits(actual: Float32Array, expected: Float32Array, what: string): void {
  assertEquals(actual.length, expected.length);
  const a = new Uint32Array(actual.buffer, actual.byteOffset, actual.length);
  const b = new Uint32Array(expected.buffer, expected.byteOffset, expected.length);
  let different = 0;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) different++;
  assert(
    different === 0,
    `${what}: expected the same bits but found ${different} of ${a.length} logits different, ` +
      `by up to ${largestDifference(actual, expected)}`,
  );
}

/** The largest difference between two vectors. */
export function largestDifference(a: Float32Array, b: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] ?? NaN) - (b[i] ?? NaN));
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

/** The index of the largest value. */
export function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) {
    if ((values[i] ?? 0) > (values[best] ?? 0)) best = i;
  }
  return best;
}

/** Generates the most likely tokens one by one; returns the logits after each. */
export async function greedyLogits(
  context: LlamaContext,
  steps: number,
  sequence = 0,
): Promise<Float32Array[]> {
  const all = [context.logits(sequence)];
  for (let i = 0; i < steps; i++) {
    await context.prefill([argmax(all.at(-1) ?? new Float32Array())], { sequence });
    all.push(context.logits(sequence));
  }
  return all;
}

/** A random subset of `count` of `n` tokens with the newest `tail`, rising. */
export function randomIndices(
  n: number,
  count: number,
  tail: number,
  random: () => number,
): Int32Array<ArrayBuffer> {
  const rest = Array.from({ length: n - tail }, (_, i) => i);
  for (let i = rest.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [rest[i], rest[j]] = [rest[j] ?? 0, rest[i] ?? 0];
  }
  const chosen = rest.slice(0, count - tail);
  for (let t = n - tail; t < n; t++) chosen.push(t);
  return Int32Array.from(chosen).sort();
}

/** Random numbers from 0 to 1, the same for the same seed. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
