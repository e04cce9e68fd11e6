/**
 * What the model says about given tokens.
 *
 * @module
 */
import { check, STATUS } from "../../ffi/status.ts";
import { abortable, throwIfAborted } from "./abort.ts";
import type { ContextHandle } from "./context_handle.ts";
import { checkSequence } from "./integers.ts";
import { bridge } from "./native.ts";
import { checkTokens } from "./tokenizer.ts";

/** Settings of {@linkcode score}. */
export interface ScoreOptions {
  /** Which sequence. @default {0} */
  sequence?: number;
  /** Stops it. */
  signal?: AbortSignal;
}

/**
 * The logits after each of some tokens, without adding them to the sequence.
 *
 * @param context The context.
 * @param tokens The tokens.
 * @param vocabSize Tokens that the model knows.
 * @param options Settings.
 * @returns The logits, `[tokens.length, vocabSize]`.
 * @throws {ChunkKvError} `invalid_argument`, `cancelled`, or why the engine refused.
 */
export async function score(
  context: ContextHandle,
  tokens: ArrayLike<number>,
  vocabSize: number,
  options: ScoreOptions,
): Promise<Float32Array<ArrayBuffer>> {
  const { sequence = 0, signal } = options;
  checkSequence(sequence);
  const given = checkTokens(tokens, vocabSize);
  check(given.length > 0, "at least one token", "none");
  throwIfAborted(signal);
  void context.idle;
  const logits = new Float32Array(given.length * vocabSize);
  const status = await abortable(
    signal,
    () => context.cancel(),
    () =>
      context.run((pointer) =>
        bridge().ckv_llama_score_async(pointer, sequence, given, given.length, logits)
      ),
  );
  if (status === STATUS.cancelled) throwIfAborted(signal);
  context.unwrap(status);
  return logits;
}
