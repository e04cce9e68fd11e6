/**
 * A sequence kept aside in memory.
 *
 * @module
 */
import { bridge, Handle } from "./native.ts";

/** Owns a snapshot in C. */
export class SnapshotHandle extends Handle {
  /** @param model The model of the contexts that it goes with. */
  constructor(model: Handle) {
    super("a snapshot", bridge().ckv_llama_snapshot_new(model.pointer), free);
  }
}

/** A sequence kept aside in memory, made by `LlamaContext.snapshot`. */
export class LlamaSnapshot implements Disposable {
  /** @internal */
  readonly handle: SnapshotHandle;
  /** Tokens that the sequence has seen. */
  readonly tokenCount: number;

  /** @internal `LlamaContext.snapshot` makes snapshots. */
  constructor(handle: SnapshotHandle, tokenCount: number) {
    this.handle = handle;
    this.tokenCount = tokenCount;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.handle.dispose();
  }
}

// Outside of the class: it must not keep alive what it frees.
function free(pointer: Deno.PointerObject): void {
  bridge().ckv_llama_snapshot_free(pointer);
}
