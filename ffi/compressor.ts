/**
 * The library on one's own arrays.
 *
 * @module
 */
import { type CompressorOptions, openContext } from "./compressor_options.ts";
import { type Device, type Isa, ISAS } from "./enums.ts";
import { native, readText } from "./library.ts";
import { blocking, nonblocking } from "./native_call.ts";
import { Held } from "./pack.ts";
import { HOST, type KeptOn, onDevice, type Place, type ScoresOn } from "./place.ts";
import {
  type ChunkScoresOptions,
  chunkScoreSteps,
  type CompactOptions,
  compactSteps,
  type CompressOptions,
  compressSteps,
  finishSteps,
  type ScoreOptions,
  scoreSteps,
  type SelectOptions,
  selectSteps,
  type Steps,
} from "./stages.ts";
import { check, ChunkKvError, unwrap } from "./status.ts";

export type { CompressorOptions };

/**
 * Scores, selects and compacts keys and values where they lie.
 *
 * Each stage has a blocking method and one ending in `Async`, which works on another thread. Both
 * read and write the caller's memory without a copy: leave it alone until an `Async` method's
 * promise has settled. A compressor serves one call at a time; several of them are independent.
 *
 * On a GPU (`device: "cuda"`) views hold `DeviceBuffer`s or addresses there, results stay there until
 * they are downloaded, and stages return when their work is queued; what only the GPU can find, such
 * as NaN, `finish` throws.
 *
 * It owns native memory: declare it with `using`, or dispose it.
 *
 * @typeParam D The device.
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
export class Compressor<D extends Device = "cpu"> implements Disposable {
  static readonly #registry = new FinalizationRegistry<Deno.PointerObject>((context) =>
    native().ckv_context_free(context)
  );

  readonly #place: Place;
  readonly #deviceIndex: number | undefined;
  #context: Deno.PointerObject | null;
  #busy = false;
  #disposed = false;

  /**
   * Makes a context of its own threads.
   *
   * @param options Device, threads and instruction set.
   * @throws {ChunkKvError} `unsupported` if this CPU does not run `isa` or CUDA cannot be used, and
   * why; `invalid_argument` if an option is out of its range; or why the library cannot be opened.
   */
  constructor(options: CompressorOptions<D> = {}) {
    this.#context = openContext(options);
    const { device = "cpu", deviceIndex = 0 } = options;
    this.#place = device === "cuda" ? onDevice(deviceIndex) : HOST;
    this.#deviceIndex = device === "cuda" ? deviceIndex : undefined;
    Compressor.#registry.register(this, this.#context, this);
  }

  /** The device in use. */
  get device(): Device {
    return this.#place.device;
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
  score(options: ScoreOptions): ScoresOn<D> {
    return this.#run((held) => scoreSteps(options, this.#place, held)) as ScoresOn<D>;
  }

  /** As {@linkcode Compressor.score}, on another thread. */
  async scoreAsync(options: ScoreOptions): Promise<ScoresOn<D>> {
    return await this.#runAsync((held) => scoreSteps(options, this.#place, held)) as ScoresOn<D>;
  }

  /**
   * Chunk scores, for inspection: selection computes its own.
   *
   * @param options Token scores, or queries and keys, and method.
   * @returns Of each sequence its chunks' scores: `ceil((kvLen - window) / chunkSize)` of them.
   * @throws {ChunkKvError} `invalid_argument` if the method has no chunks; of queries and keys what
   * {@linkcode Compressor.score} throws; `busy`; `disposed`.
   */
  chunkScores(options: ChunkScoresOptions): Float32Array<ArrayBuffer>[] {
    return this.#run((held) => chunkScoreSteps(options, this.#place, held));
  }

  /** As {@linkcode Compressor.chunkScores}, on another thread. */
  chunkScoresAsync(options: ChunkScoresOptions): Promise<Float32Array<ArrayBuffer>[]> {
    return this.#runAsync((held) => chunkScoreSteps(options, this.#place, held));
  }

  /**
   * Chooses the tokens to keep, from queries and keys or from token scores.
   *
   * @param options Method, `budget` or `keep`, and what to choose from.
   * @returns Kept indices of each sequence.
   * @throws {ChunkKvError} `numeric` on NaN; `out_of_bounds` or `invalid_argument` on views and
   * settings that do not fit; `busy`; `disposed`.
   */
  select(options: SelectOptions): KeptOn<D> {
    return this.#run((held) => selectSteps(options, this.#place, held)) as KeptOn<D>;
  }

  /** As {@linkcode Compressor.select}, on another thread. */
  async selectAsync(options: SelectOptions): Promise<KeptOn<D>> {
    return await this.#runAsync((held) => selectSteps(options, this.#place, held)) as KeptOn<D>;
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
    this.#run((held) => compactSteps(options, this.#place, held));
  }

  /** As {@linkcode Compressor.compact}, on another thread. */
  async compactAsync(options: CompactOptions): Promise<void> {
    await this.#runAsync((held) => compactSteps(options, this.#place, held));
  }

  /**
   * All stages for all layers of a model, in place. Nothing is moved before every layer is selected.
   *
   * @param options Layers, method, and `budget` or `keep`.
   * @returns Kept indices of each layer.
   * @throws {ChunkKvError} As the single stages.
   */
  compress(options: CompressOptions): KeptOn<D>[] {
    return this.#run((held) => compressSteps(options, this.#place, held)) as KeptOn<D>[];
  }

  /** As {@linkcode Compressor.compress}, on another thread. */
  async compressAsync(options: CompressOptions): Promise<KeptOn<D>[]> {
    return await this.#runAsync((held) => compressSteps(options, this.#place, held)) as KeptOn<D>[];
  }

  /**
   * Waits for the work that is queued on a GPU; on the CPU there is none.
   *
   * @throws {ChunkKvError} What the GPU has found since the last time: `numeric` on NaN,
   * `out_of_bounds` on entries of block tables and indices outside their memory. No row has moved
   * since then.
   */
  finish(): void {
    this.#run(finishSteps);
  }

  /** As {@linkcode Compressor.finish}, on another thread. */
  finishAsync(): Promise<void> {
    return this.#runAsync(finishSteps);
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
    const held = new Held(this.#deviceIndex);
    try {
      const steps = stage(held);
      for (let step = steps.next();; step = steps.next()) {
        if (step.done) return step.value;
        this.#unwrap(context, blocking(context, step.value));
      }
    } finally {
      this.#leave(held);
    }
  }

  async #runAsync<Result>(stage: (held: Held) => Steps<Result>): Promise<Result> {
    const context = this.#enter();
    const held = new Held(this.#deviceIndex);
    try {
      const steps = stage(held);
      for (let step = steps.next();; step = steps.next()) {
        if (step.done) return step.value;
        // Deno before 2.7.6 does not keep the packed structs themselves while C reads them.
        for (const arg of step.value.args) if (ArrayBuffer.isView(arg)) held.address(arg);
        this.#unwrap(context, await nonblocking(context, step.value));
      }
    } finally {
      this.#leave(held);
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

  #leave(held: Held): void {
    try {
      held.release();
    } finally {
      this.#busy = false;
      if (this.#disposed) this[Symbol.dispose]();
    }
  }

  #unwrap(context: Deno.PointerObject, status: number): void {
    unwrap(status, () => readText(native().ckv_context_error(context)) ?? "");
  }
}
