/**
 * What is measured on a context, with the same steps for every method.
 *
 * @module
 */
import type { LlamaContext } from "chunkkv/llama-cpp";
import { klDivergence, logSoftmax } from "../metrics/divergence.ts";

/** Size and times of one way to compress: snake_case, as in the JSON. */
export interface CaseSpeed {
  kept_tokens: number;
  /** Keys and values in the cache. */
  kv_mib: number;
  /** Of the prompt; h2o reads it while it adds up attention. */
  prefill_s: number;
  /** Scores, selection and moving rows; null for the full cache. */
  compress_ms: number | null;
  /** Of the compression: scores and selection. */
  select_ms: number | null;
  decode_tps: number;
  /**
   * Decoding in a context of the same length that was never compressed, in alternating turns; null:
   * not measured.
   */
  native_tps: number | null;
}

/**
 * Greedy text from where the sequence ends.
 *
 * @param context A context whose sequence 0 has logits.
 * @param maxTokens Most tokens.
 * @param options `ignoreEnd`: goes on to `maxTokens` where the answer would end; `stop`: texts that
 * end it.
 * @returns The text and its tokens, all of them in the cache.
 */
export async function greedy(
  context: LlamaContext,
  maxTokens: number,
  options: { ignoreEnd?: boolean; stop?: readonly string[]; signal?: AbortSignal } = {},
): Promise<{ text: string; tokens: readonly number[] }> {
  const pieces = context.generate({ ...options, maxTokens, temperature: 0 });
  let text = "";
  for (;;) {
    const { done, value } = await pieces.next();
    if (done) return { text, tokens: value.tokens };
    text += value;
  }
}

/**
 * Log-probabilities before each of `tokens` but the first, which the prompt alone decides: the
 * tokens are put in whatever the model itself would say.
 */
export async function teacherForced(
  context: LlamaContext,
  tokens: readonly number[],
): Promise<Float64Array[]> {
  const distributions: Float64Array[] = [];
  for (const token of tokens.slice(0, -1)) {
    await context.prefill([token]);
    distributions.push(logSoftmax(context.logits()));
  }
  return distributions;
}

/** Mean KL(reference || other) over positions, in nats; null without any. */
export function meanDivergence(
  reference: readonly Float64Array[],
  other: readonly Float64Array[],
): number | null {
  if (reference.length === 0) return null;
  const sum = reference.reduce((total, p, i) => total + klDivergence(p, other[i]!), 0);
  return sum / reference.length;
}

// Short turns that alternate, and begin with the other side each time: what else the machine does hits
// both sides of a ratio alike.
const TIMED_TURNS = 24;
const TURNS_ALONE = 8; // where there is nothing to compare with
const TOKENS_PER_TURN = 8;

/** The most tokens by which {@linkcode decodeRates} makes a sequence longer. */
export const TIMED_TOKENS = TIMED_TURNS * TOKENS_PER_TURN;

/** Decoded tokens a second of each context, measured in alternating turns. */
export async function decodeRates(contexts: readonly LlamaContext[]): Promise<number[]> {
  const seconds = contexts.map(() => [] as number[]);
  const turns = contexts.length > 1 ? TIMED_TURNS : TURNS_ALONE;
  for (let turn = 0; turn < turns; turn++) {
    const order = [...contexts.entries()];
    for (const [i, context] of turn % 2 ? order.reverse() : order) {
      seconds[i]!.push(await decodeSeconds(context, TOKENS_PER_TURN));
    }
  }
  return seconds.map((turns) => TOKENS_PER_TURN / median(turns));
}

/**
 * Seconds that `tokens` decoding steps take, whatever the model says in them.
 *
 * @param context A context whose sequence 0 has logits; it is `tokens` longer afterwards.
 * @param tokens Steps; the end of the answer does not end them.
 */
export async function decodeSeconds(context: LlamaContext, tokens: number): Promise<number> {
  const length = context.tokenCount();
  const start = performance.now();
  const pieces = context.generate({ maxTokens: tokens, temperature: 0, ignoreEnd: true });
  for await (const _ of pieces);
  const seconds = (performance.now() - start) / 1000;
  const generated = context.tokenCount() - length;
  if (generated !== tokens) {
    throw new Error(`Expected ${tokens} decoded tokens but found ${generated}`);
  }
  return seconds;
}

/** The middle of `values`; the mean of the two middle ones if their number is even. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}
