/**
 * What a cache and its sequences share.
 *
 * @module
 */
import { Compressor, type CompressorOptions } from "../../ffi/compressor.ts";
import { Kept } from "../../ffi/kept.ts";
import { BlockPool } from "./block_pool.ts";
import { busy, disposed } from "./errors.ts";
import type { Pages } from "./pages.ts";

/** Pool, memory, and who moves rows in it. */
export class PagedCore implements Disposable {
  readonly #pages: Pages;
  readonly #pool: BlockPool;
  readonly #compressor: Compressor;
  // Copies before a write must not wait for a compaction on another thread.
  readonly #copier: Compressor;
  #turn: Promise<void> = Promise.resolve();
  #waiting = 0;
  #disposed = false;

  /**
   * @param pages The memory.
   * @param options Threads and instruction set of compactions.
   */
  constructor(pages: Pages, options: CompressorOptions) {
    this.#pages = pages;
    this.#pool = new BlockPool(pages.numBlocks);
    this.#compressor = new Compressor(options);
    this.#copier = new Compressor({ ...options, threads: 1 });
  }

  /** The memory. */
  get pages(): Pages {
    this.checkLive();
    return this.#pages;
  }

  /** The blocks. Letting go of them works on a disposed cache, too. */
  get pool(): BlockPool {
    return this.#pool;
  }

  /** Throws if the cache is disposed. */
  checkLive(): void {
    if (this.#disposed) throw disposed("PagedKvCache");
  }

  /** The compressor, while no compaction runs on another thread. */
  get idleCompressor(): Compressor {
    this.checkLive();
    if (this.#waiting > 0) throw busy("PagedKvCache");
    return this.#compressor;
  }

  /** Runs one compaction on another thread after those before it. */
  async takeTurn<Result>(run: (compressor: Compressor) => Promise<Result>): Promise<Result> {
    const before = this.#turn;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#turn = promise;
    this.#waiting++;
    try {
      await before;
      this.checkLive();
      return await run(this.#compressor);
    } finally {
      this.#waiting--;
      resolve();
    }
  }

  /** Copies the first rows of a block to another block, in all layers. */
  copyBlock(from: number, to: number, rows: number): void {
    const kept = Kept.from([[Int32Array.from({ length: rows }, (_, i) => i)]]);
    const tables = { batch: 1, kvLen: rows, kvLens: undefined, maxBlocks: 1 };
    const source = { ...tables, blockTable: Int32Array.of(from) };
    const target = { ...tables, blockTable: Int32Array.of(to) };
    for (let layer = 0; layer < this.pages.layers.length; layer++) {
      const to = this.pages.moved(layer, target);
      this.#copier.compact({ ...this.pages.moved(layer, source), kept, to });
    }
  }

  /** Frees what it owns, after a running compaction if there is one. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#compressor[Symbol.dispose]();
    this.#copier[Symbol.dispose]();
  }
}
