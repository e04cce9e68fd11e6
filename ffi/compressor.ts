/**
 * The library on one's own arrays.
 *
 * @module
 */
import { type Isa, ISAS } from "./enums.ts";
import type { Kept } from "./kept.ts";
import { native, readText, usableIsas } from "./library.ts";
import { Held } from "./pack.ts";
import type { Scores } from "./scores.ts";
import {
  type ChunkScoresOptions,
  chunkScoreSteps,
  type CompactOptions,
  compactSteps,
  type CompressOptions,
  compressSteps,
  type ScoreOptions,
  scoreSteps,
  type SelectOptions,
  selectSteps,
  type Step,
  type Steps,
} from "./stages.ts";
import { check, ChunkKvError, STATUS, unwrap } from "./status.ts";
import { CONTEXT_PARAMS, packStruct } from "./structs.ts";

/** What a {@linkcode Compressor} computes with. */
export interface CompressorOptions {
  /** Threads, the calling one included; 0: one per core that this process may use. @default {0} */
  threads?: number;
  /** Instruction set of the kernels, one of `usableIsas()`. @default {"best"} */
  isa?: Isa;
}

/**
 * Scores, selects and compacts keys and values where they lie.
 *
 * Each stage has a blocking method and one ending in `Async`, which works on another thread. Both
 * read and write the caller's memory without a copy: leave it alone until an `Async` method's
 * promise has settled. A compressor serves one call at a time; several of them are independent.
 *
 * It owns native memory: declare it with `using`, or dispose it.
 *
 * @example A cache of 200 tokens shrinks to 64, in place
 * ```ts
 * import { chunkKv, Compressor, contiguousKv, queryView } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * const shape = { numKvHeads: 2, kvLen: 200, headDim: 64 };
 * const keys = contiguousKv({ data: new Float32Array(2 * 200 * 64).fill(0.1), ...shape });
 * const values = contiguousKv({ data: new Float32Array(2 * 200 * 64), ...shape });
 * const queries = queryView({
 *   data: new Float32Array(8 * 32 * 64).fill(0.1),
 *   numQHeads: 8,
 *   window: 32,
 *   headDim: 64,
 * });
 *
 * using compressor = new Compressor({ threads: 1 });
 * const kept = compressor.select({ queries, keys, method: chunkKv(), budget: 64 });
 * compressor.compact({ keys, values, kept });
 * assertEquals(kept.at(0).length, 64);
 * ```
 */
export class Compressor implements Disposable {
  static readonly #registry = new FinalizationRegistry<Deno.PointerObject>((context) =>
    native().ckv_context_free(context)
  );

  #context: Deno.PointerObject | null;
  #busy = false;
  #disposed = false;

  /**
   * Makes a context of its own threads.
   *
   * @param options Threads and instruction set.
   * @throws {ChunkKvError} `unsupported` if this CPU does not run `isa`, `invalid_argument` if an
   * option is out of its range, or why the library cannot be opened.
   */
  constructor(options: CompressorOptions = {}) {
    const { threads = 0, isa = "best" } = options;
    check(Object.hasOwn(ISAS, isa), `isa to be one of ${Object.keys(ISAS).join(", ")}`, isa);
    check(
      Number.isInteger(threads) && threads >= 0,
      "threads to be an integer of at least 0",
      threads,
    );
    const params = packStruct(CONTEXT_PARAMS, { num_threads: threads, isa: ISAS[isa] });
    const created = new BigUint64Array(1);
    const status = native().ckv_context_create(params, created);
    if (status === STATUS.unsupported) {
      throw new ChunkKvError(
        "unsupported",
        `Expected isa to be one that this CPU runs (${usableIsas().join(", ")}) but found ${isa}`,
      );
    }
    unwrap(status, `Expected a context of ${threads} threads but found that none can be made`);
    this.#context = Deno.UnsafePointer.create(created[0] ?? 0n);
    if (this.#context !== null) Compressor.#registry.register(this, this.#context, this);
  }

  /** The instruction set in use. */
  get isa(): Isa {
    const number = native().ckv_context_isa(this.unsafeHandle);
    const isa = (Object.keys(ISAS) as Isa[]).find((name) => ISAS[name] === number);
    check(isa !== undefined, "a known instruction set", number);
    return isa;
  }

  /** Threads in use, the calling one included. */
  get threads(): number {
    return native().ckv_context_num_threads(this.unsafeHandle);
  }

  /** The `ckv_context *`; it dies with this object. */
  get unsafeHandle(): Deno.PointerObject {
    if (this.#disposed || this.#context === null) {
      throw new ChunkKvError("disposed", "Expected a live Compressor but found a disposed one");
    }
    return this.#context;
  }

  /**
   * Attention of the window's queries to each token.
   *
   * @param options Queries, keys and method.
   * @returns Token scores.
   * @throws {ChunkKvError} `numeric` on NaN; `out_of_bounds` or `invalid_argument` on views that do
   * not fit; `busy`; `disposed`.
   */
  score(options: ScoreOptions): Scores {
    return this.#run((held) => scoreSteps(options, held));
  }

  /** As {@linkcode Compressor.score}, on another thread. */
  scoreAsync(options: ScoreOptions): Promise<Scores> {
    return this.#runAsync((held) => scoreSteps(options, held));
  }

  /**
   * Chunk scores, for inspection: selection computes its own.
   *
   * @param options Token scores and method.
   * @returns Of each sequence its chunks' scores: `ceil((kvLen - window) / chunkSize)` of them.
   * @throws {ChunkKvError} `invalid_argument` if the method has no chunks; `busy`; `disposed`.
   */
  chunkScores(options: ChunkScoresOptions): Float32Array<ArrayBuffer>[] {
    return this.#run((held) => chunkScoreSteps(options, held));
  }

  /** As {@linkcode Compressor.chunkScores}, on another thread. */
  chunkScoresAsync(options: ChunkScoresOptions): Promise<Float32Array<ArrayBuffer>[]> {
    return this.#runAsync((held) => chunkScoreSteps(options, held));
  }

  /**
   * Chooses the tokens to keep, from queries and keys or from token scores.
   *
   * @param options Method, `budget` or `keep`, and what to choose from.
   * @returns Kept indices of each sequence.
   * @throws {ChunkKvError} `numeric` on NaN; `out_of_bounds` or `invalid_argument` on views and
   * settings that do not fit; `busy`; `disposed`.
   */
  select(options: SelectOptions): Kept {
    return this.#run((held) => selectSteps(options, held));
  }

  /** As {@linkcode Compressor.select}, on another thread. */
  selectAsync(options: SelectOptions): Promise<Kept> {
    return this.#runAsync((held) => selectSteps(options, held));
  }

  /**
   * Moves the kept rows to the front, in place or into other memory. A call that fails has moved
   * no row.
   *
   * @param options Keys, values, or both, and what to keep of them.
   * @throws {ChunkKvError} `out_of_bounds` or `invalid_argument` on views or indices that do not
   * fit; `busy`; `disposed`.
   */
  compact(options: CompactOptions): void {
    this.#run((held) => compactSteps(options, held));
  }

  /** As {@linkcode Compressor.compact}, on another thread. */
  async compactAsync(options: CompactOptions): Promise<void> {
    await this.#runAsync((held) => compactSteps(options, held));
  }

  /**
   * All stages for all layers of a model, in place. Nothing is moved before every layer is selected.
   *
   * @param options Layers, method, and `budget` or `keep`.
   * @returns Kept indices of each layer.
   * @throws {ChunkKvError} As the single stages.
   */
  compress(options: CompressOptions): Kept[] {
    return this.#run((held) => compressSteps(options, held));
  }

  /** As {@linkcode Compressor.compress}, on another thread. */
  compressAsync(options: CompressOptions): Promise<Kept[]> {
    return this.#runAsync((held) => compressSteps(options, held));
  }

  /** Frees the native memory, after a running call if there is one; doing it again is harmless. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    if (this.#busy || this.#context === null) return;
    Compressor.#registry.unregister(this);
    native().ckv_context_free(this.#context);
    this.#context = null;
  }

  #run<Result>(stage: (held: Held) => Steps<Result>): Result {
    const context = this.#enter();
    const held = new Held();
    try {
      const steps = stage(held);
      for (let step = steps.next();; step = steps.next()) {
        if (step.done) return step.value;
        this.#unwrap(context, blocking(context, step.value));
      }
    } finally {
      held.release();
      this.#leave();
    }
  }

  async #runAsync<Result>(stage: (held: Held) => Steps<Result>): Promise<Result> {
    const context = this.#enter();
    const held = new Held();
    try {
      const steps = stage(held);
      for (let step = steps.next();; step = steps.next()) {
        if (step.done) return step.value;
        this.#unwrap(context, await nonblocking(context, step.value));
      }
    } finally {
      held.release();
      this.#leave();
    }
  }

  #enter(): Deno.PointerObject {
    const context = this.unsafeHandle;
    if (this.#busy) {
      throw new ChunkKvError("busy", "Expected an idle Compressor but found one inside a call");
    }
    this.#busy = true;
    return context;
  }

  #leave(): void {
    this.#busy = false;
    if (this.#disposed) this[Symbol.dispose]();
  }

  #unwrap(context: Deno.PointerObject, status: number): void {
    unwrap(status, () => readText(native().ckv_context_error(context)) ?? "");
  }
}

// The stages differ in their parameters; a test compares the table with the header.
type AnyStage<Result> = (context: Deno.PointerObject, ...args: Step["args"]) => Result;

function blocking(context: Deno.PointerObject, step: Step): number {
  return (native()[step.name] as AnyStage<number>)(context, ...step.args);
}

function nonblocking(context: Deno.PointerObject, step: Step): Promise<number> {
  return (native()[`${step.name}_async`] as AnyStage<Promise<number>>)(context, ...step.args);
}
