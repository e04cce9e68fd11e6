/**
 * A context in C: made, guarded against a second call, and its errors read.
 *
 * @module
 */
import { STATUS, unwrap } from "../../ffi/status.ts";
import { busy } from "./abort.ts";
import { type LlamaContextOptions, packContextParams } from "./context_options.ts";
import { bridge, Handle, readText } from "./native.ts";
import { CONTEXT_INFO, packStruct, readStruct } from "./structs.ts";

/** Owns a context, initialised. */
export class ContextHandle extends Handle {
  /** What the context turned out to be. */
  readonly info: ReturnType<typeof readStruct<typeof CONTEXT_INFO>>;

  /**
   * @param model The model.
   * @param options Settings.
   * @throws {ChunkKvError} `invalid_argument`, or `engine` if llama.cpp cannot make it.
   */
  constructor(model: Handle, options: LlamaContextOptions) {
    const params = packContextParams(options);
    super("a context", bridge().ckv_llama_context_new(model.pointer), free);
    try {
      this.unwrap(bridge().ckv_llama_context_init(this.pointer, params));
      this.info = this.readInfo();
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** What C says of it now. */
  readInfo(): ReturnType<typeof readStruct<typeof CONTEXT_INFO>> {
    const info = packStruct(CONTEXT_INFO, {});
    this.unwrap(bridge().ckv_llama_context_get_info(this.pointer, info));
    return readStruct(CONTEXT_INFO, info);
  }

  /** The object, while no call runs on another thread. */
  get idle(): Deno.PointerObject {
    if (this.isRunning) throw busy();
    return this.pointer;
  }

  /** Throws what a status means. */
  unwrap(status: number): void {
    if (status === STATUS.ok) return;
    const text = this.isDisposed
      ? "The context was disposed of meanwhile"
      : readText(bridge().ckv_llama_context_error(this.pointer));
    unwrap(status, text || busy().message);
  }

  /** A count from C, where failures are negative statuses. */
  count(value: number | bigint): number {
    const count = Number(value);
    if (count < 0) this.unwrap(-count);
    return count;
  }

  /** Asks a running call to stop. */
  cancel(): void {
    if (!this.isDisposed) bridge().ckv_llama_context_cancel(this.pointer);
  }
}

// Outside of the class: it must not keep alive what it frees.
function free(pointer: Deno.PointerObject): void {
  bridge().ckv_llama_context_free(pointer);
}
