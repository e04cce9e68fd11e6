/**
 * Sequences side by side, as an attention kernel takes them.
 *
 * @module
 */
import type { KvView } from "../../ffi/kv_view.ts";
import type { LayerPages, Pages, Tables } from "./pages.ts";
import { free, type Table } from "./place.ts";

/**
 * The block tables and lengths of sequences at one time, for every layer. Appending, compacting or
 * freeing one of them makes a new batch necessary. Made by `PagedKvCache.batch`.
 *
 * On a GPU its views have copies of table and lengths there: dispose it when they are not needed any
 * more, or leave that to the garbage collection.
 */
export class PagedBatch implements Disposable {
  /** Sequences. */
  readonly batch: number;
  /** Blocks of each sequence, `[batch, maxBlocks]`; entries after a sequence's own are 0. */
  readonly blockTable: Int32Array<ArrayBuffer>;
  /** Entries in a row of `blockTable`. */
  readonly maxBlocks: number;
  /** Tokens in the cache of each sequence, `[batch]`. */
  readonly kvLens: Int32Array<ArrayBuffer>;
  /** The most tokens of any. */
  readonly kvLen: number;
  readonly #pages: Pages;
  #tables: { blockTable: Table; kvLens: Table } | undefined;

  /** Internal: `PagedKvCache.batch` makes batches. */
  constructor(
    pages: Pages,
    sequences: readonly { readonly blocks: readonly number[]; readonly length: number }[],
  ) {
    this.#pages = pages;
    this.batch = sequences.length;
    this.kvLens = Int32Array.from(sequences, ({ length }) => length);
    this.kvLen = this.kvLens.reduce((most, length) => Math.max(most, length), 0);
    this.maxBlocks = sequences.reduce((most, { blocks }) => Math.max(most, blocks.length), 0);
    this.blockTable = new Int32Array(this.batch * this.maxBlocks);
    sequences.forEach(({ blocks }, b) => this.blockTable.set(blocks, b * this.maxBlocks));
  }

  /**
   * The keys of a layer.
   *
   * @param layer Which one.
   * @returns A view of them where they lie.
   * @throws {ChunkKvError} `invalid_argument` if there is no such layer.
   */
  keys(layer: number): KvView {
    return this.#view(layer, "keys");
  }

  /**
   * The values of a layer.
   *
   * @param layer Which one.
   * @returns A view of them where they lie.
   * @throws {ChunkKvError} `invalid_argument` if there is no such layer.
   */
  values(layer: number): KvView {
    return this.#view(layer, "values");
  }

  /** What views of it are made of, where the pages are. */
  get tables(): Tables {
    const { batch, kvLen, maxBlocks } = this;
    const { place } = this.#pages;
    this.#tables ??= {
      blockTable: place.table(this.blockTable),
      kvLens: place.table(this.kvLens),
    };
    return { batch, kvLen, maxBlocks, ...this.#tables };
  }

  /** Frees the copies on a GPU; doing it again is harmless. */
  [Symbol.dispose](): void {
    if (!this.#tables) return;
    free(this.#tables.blockTable);
    free(this.#tables.kvLens);
    this.#tables = undefined;
  }

  #view(layer: number, which: keyof LayerPages): KvView {
    return this.#pages.view(layer, which, this.tables);
  }
}
