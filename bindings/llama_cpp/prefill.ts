/**
 * A prompt's way into a sequence: all of it or nothing.
 *
 * @module
 */
import { throwIfAborted } from "./abort.ts";
import { bridge, type Handle } from "./native.ts";

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
 * @param unwrapStatus Throws what a status means.
 * @param options Settings.
 * @returns What it did.
 * @throws {ChunkKvError} `cancelled`, or why the engine refused; the sequence is as it was.
 */
export async function prefill(
  context: Handle,
  tokens: Int32Array<ArrayBuffer>,
  batchSize: number,
  unwrapStatus: (status: number) => void,
  options: PrefillOptions,
): Promise<PrefillReport> {
  const { sequence = 0, onProgress, signal } = options;
  const native = bridge();
  const start = performance.now();
  throwIfAborted(signal);
  unwrapStatus(native.ckv_llama_prefill_begin(context.pointer, sequence, tokens.length));
  let isOpen = true;
  const cancel = () => native.ckv_llama_context_cancel(context.pointer);
  signal?.addEventListener("abort", cancel);
  try {
    for (let done = 0; done < tokens.length;) {
      onProgress?.({ done, total: tokens.length });
      throwIfAborted(signal);
      const batch = tokens.subarray(done, done + batchSize);
      const status = await context.run((pointer) =>
        native.ckv_llama_prefill_step_async(pointer, batch, batch.length)
      );
      // A step that fails has undone the prompt itself.
      isOpen = status === 0 && done + batch.length < tokens.length;
      if (status !== 0) throwIfAborted(signal);
      unwrapStatus(status);
      done += batch.length;
    }
    onProgress?.({ done: tokens.length, total: tokens.length });
  } finally {
    signal?.removeEventListener("abort", cancel);
    if (isOpen && !context.isDisposed) native.ckv_llama_prefill_undo(context.pointer);
  }
  return { tokens: tokens.length, milliseconds: performance.now() - start };
}
