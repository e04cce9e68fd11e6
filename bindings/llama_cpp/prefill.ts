/**
 * A prompt's way into a sequence: all of it or nothing.
 *
 * @module
 */
import { STATUS } from "../../ffi/status.ts";
import { abortable, throwIfAborted } from "./abort.ts";
import type { ContextHandle } from "./context_handle.ts";
import { bridge } from "./native.ts";
import type { StreamingOptions } from "./streaming.ts";

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
  /** Stops it; the sequence is then what it was before, or has been compacted: see `streaming`. */
  signal?: AbortSignal;
  /**
   * Reads a prompt of any length: whenever the cache is full, the sequence is compacted to a budget
   * and reading goes on. Positions count on through the whole prompt; those beyond what the model was
   * trained for are not refused. A prompt that fits goes in as without streaming.
   *
   * A compaction cannot be undone. If the prompt is stopped or fails, only the piece that was going in
   * since the newest compaction is undone; what was read before stays, compacted, and `tokenCount()`
   * and the error tell how much. From there the rest can be read, or `clear()` empties the sequence.
   * Meanwhile no other call may change the context.
   *
   * `invalid_argument` if the budget leaves no room to read on, before anything is read; `unsupported`
   * at the first compaction if the context cannot be compressed.
   *
   * @example 24,000 tokens through 8,192 cells
   * ```ts
   * import { LlamaModel } from "chunkkv/llama-cpp";
   *
   * async function read(path: string, text: string): Promise<void> {
   *   using model = await LlamaModel.load(path);
   *   using context = model.createContext({ contextSize: 8192 });
   *   const { tokens, compactions } = await context.prefill(text, { streaming: { budget: 4096 } });
   *   console.log(`${tokens} tokens, ${compactions} compactions, ${context.cellCount()} cells`);
   * }
   *
   * console.log(typeof read);
   * ```
   *
   * @default {false}
   */
  streaming?: boolean | StreamingOptions;
}

/** What a prefill did. */
export interface PrefillReport {
  /** Tokens that went in. */
  readonly tokens: number;
  /** What it took, compactions included. */
  readonly milliseconds: number;
  /** Compactions that made room for it; 0 without streaming. */
  readonly compactions: number;
  /** What those took. */
  readonly compactionMilliseconds: number;
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
  return {
    tokens: tokens.length,
    milliseconds: performance.now() - start,
    compactions: 0,
    compactionMilliseconds: 0,
  };
}
