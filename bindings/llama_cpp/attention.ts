/**
 * The attention that cached tokens have got: what `h2o` chooses by.
 *
 * @module
 */
import { check } from "../../ffi/status.ts";
import type { ContextHandle } from "./context_handle.ts";
import { checkSequence } from "./integers.ts";
import { bridge } from "./native.ts";

/** The attention that the tokens of one layer have got from all queries so far. */
export interface LayerAttention {
  /** The layer's number in the model. */
  readonly layer: number;
  /**
   * For each kv head one sum per cached token, over all queries that see it and the query heads that
   * share the kv head.
   */
  readonly sums: readonly Float64Array<ArrayBuffer>[];
}

/**
 * Attention that was added up in a context with `accumulateAttention`; it goes with the state of the
 * same moment. Layers with a sliding window are not in it.
 */
export class AccumulatedAttention {
  /** As C has it. */
  readonly bytes: Uint8Array<ArrayBuffer>;

  /**
   * Attention as {@linkcode LlamaContext.saveAttention} gives it.
   *
   * @param bytes What C has written.
   */
  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.bytes = bytes;
  }

  /** Taken apart: one entry per layer, copied. */
  get layers(): LayerAttention[] {
    const view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
    const tokens = view.getInt32(4, true);
    let at = 16;
    return Array.from({ length: view.getInt32(8, true) }, () => {
      const [layer, heads] = [view.getInt32(at, true), view.getInt32(at + 4, true)];
      at += 8;
      const sums = Array.from({ length: heads }, () => {
        const row = this.bytes.slice(at, at += 8 * tokens);
        return new Float64Array(row.buffer);
      });
      return { layer, sums };
    });
  }
}

/**
 * Reads the attention of a sequence.
 *
 * @param context The context.
 * @param sequence Which sequence.
 * @returns A copy.
 * @throws {ChunkKvError} `invalid_argument` if the context does not add it up, or queries are missing.
 */
export function saveAttention(context: ContextHandle, sequence: number): AccumulatedAttention {
  const native = bridge();
  const size = context.count(
    native.ckv_llama_attention_size(context.idle, checkSequence(sequence)),
  );
  const bytes = new Uint8Array(size);
  const read = native.ckv_llama_attention_get(context.idle, sequence, bytes, BigInt(size));
  check(context.count(read) === size, `${size} bytes of attention`, read);
  return new AccumulatedAttention(bytes);
}

/**
 * Replaces the attention of a sequence.
 *
 * @param context The context.
 * @param sequence Which sequence.
 * @param attention What was saved with its state.
 * @throws {ChunkKvError} `invalid_argument` if it does not go with the sequence.
 */
export function restoreAttention(
  context: ContextHandle,
  sequence: number,
  { bytes }: AccumulatedAttention,
): void {
  context.unwrap(
    bridge().ckv_llama_attention_set(context.idle, sequence, bytes, BigInt(bytes.length)),
  );
}
