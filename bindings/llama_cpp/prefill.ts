/**
 * A prompt's way into a sequence: all of it or nothing.
 *
 * @module
 */
import { STATUS } from "../../ffi/status.ts";
import { abortable, throwIfAborted } from "./abort.ts";
import type { ContextHandle } from "./context_handle.ts";
import { bridge } from "./native.ts";

/** How far a prompt is. */
export interface PrefillProgress {
  /** Tokens that are in. */
  readonly done: number;
  /** Tokens of the prompt. */
  readonly total: number;
}

/** Settings of a prefill. */
export interface PrefillOptions {
  /** Which sequence. @default {0} */
  sequence?: number;
  /** Called at the start and after each batch. */
  onProgress?: (progress: PrefillProgress) => void;
  /** Stops it; the sequence is then what it was before. */
  signal?: AbortSignal;
}

/** What a prefill did. */
export interface PrefillReport {
  /** Tokens that went in. */
  readonly tokens: number;
  /** What it took. */
  readonly milliseconds: number;
}

/**
 * Decodes a prompt at the end of a sequence, batch by batch on another thread.
 *
 * @param context The context.
 * @param tokens The prompt.
 * @param batchSize Most tokens in a batch.
 * @param options Settings.
 * @returns What it did.
 * @throws {ChunkKvError} `cancelled`, or why the engine refused; the sequence is as it was.
 */
export async function prefill(
  context: ContextHandle,
  tokens: Int32Array<ArrayBuffer>,
  batchSize: number,
  options: PrefillOptions,
): Promise<PrefillReport> {
  const { sequence = 0, onProgress, signal } = options;
  const native = bridge();
  const start = performance.now();
  throwIfAborted(signal);
  context.unwrap(native.ckv_llama_prefill_begin(context.idle, sequence, tokens.length));
  let isOpen = true;
  try {
    for (let done = 0; done < tokens.length;) {
      onProgress?.({ done, total: tokens.length });
      const batch = tokens.subarray(done, done + batchSize);
      const step = () =>
        context.run((pointer) => native.ckv_llama_prefill_step_async(pointer, batch, batch.length));
      let status: number;
      // Busy: another call was just being refused, and the step has done nothing.
      do {
        throwIfAborted(signal);
        status = await abortable(signal, () => context.cancel(), step);
      } while (status === STATUS.busy);
      // A step that fails has undone the prompt itself.
      isOpen = status === STATUS.ok && done + batch.length < tokens.length;
      if (status !== STATUS.ok) throwIfAborted(signal);
      context.unwrap(status);
      done += batch.length;
    }
    onProgress?.({ done: tokens.length, total: tokens.length });
  } finally {
    // A call that is just being refused is not long.
    while (
      isOpen && !context.isDisposed &&
      native.ckv_llama_prefill_undo(context.pointer) === STATUS.busy
    ) await new Promise((resolve) => setTimeout(resolve));
  }
  return { tokens: tokens.length, milliseconds: performance.now() - start };
}
