/**
 * What a cache and its sequences share.
 *
 * @module
 */
import { Compressor, type CompressorOptions } from "../../ffi/compressor.ts";
import type { Device } from "../../ffi/enums.ts";
import { Kept } from "../../ffi/kept.ts";
import { BlockPool } from "./block_pool.ts";
import { PagedBatch } from "./batch.ts";
import { busy, disposed } from "./errors.ts";
import type { Pages } from "./pages.ts";
import { free } from "./place.ts";
import { type WriteOptions, writeRows } from "./rows.ts";

/** Pool, memory, and who moves rows in it. */
export class PagedCore implements Disposable {
  readonly #pages: Pages;
  readonly #pool: BlockPool;
  readonly #compressor: Compressor<Device>;
  // Copies before a write must not wait for a compaction on another thread.
  readonly #copier: Compressor<Device>;
  #turn: Promise<void> = Promise.resolve();
  #waiting = 0;
  #disposed = false;

  /**
   * @param pages The memory.
   * @param options Threads and instruction set of compactions.
   */
  constructor(pages: Pages, options: CompressorOptions<Device>) {
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
  get idleCompressor(): Compressor<Device> {
    this.checkLive();
    if (this.#waiting > 0) throw busy("PagedKvCache");
    return this.#compressor;
  }

  /** Runs one compaction on another thread after those before it. */
  async takeTurn<Result>(
    run: (compressor: Compressor<Device>) => Promise<Result>,
  ): Promise<Result> {
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
    const { pages } = this;
    using source = new PagedBatch(pages, [{ blocks: [from], length: rows }]);
    using target = new PagedBatch(pages, [{ blocks: [to], length: rows }]);
    const every = Int32Array.from({ length: rows }, (_, i) => i);
    const kept = pages.place.kept(Kept.from([[every]]));
    try {
      for (let layer = 0; layer < pages.layers.length; layer++) {
        const to = pages.moved(layer, target.tables);
        this.#copier.compact({ ...pages.moved(layer, source.tables), kept, to });
      }
      this.#copier.finish();
    } finally {
      free(kept);
    }
  }

  /** Writes rows of one layer. */
  write(layer: number, options: WriteOptions): void {
    writeRows(this.pages.layer(layer), options, this.pages.place, this.#copier);
  }

  /** Frees what it owns, after a running compaction if there is one. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#compressor[Symbol.dispose]();
    this.#copier[Symbol.dispose]();
    this.#pages[Symbol.dispose]();
  }
}
