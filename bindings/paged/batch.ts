/**
 * Sequences side by side, as an attention kernel takes them.
 *
 * @module
 */
import type { KvView } from "../../ffi/kv_view.ts";
import type { LayerPages, Pages } from "./pages.ts";

/**
 * The block tables and lengths of sequences at one time, for every layer. Appending, compacting or
 * freeing one of them makes a new batch necessary. Made by `PagedKvCache.batch`.
 */
export class PagedBatch {
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

  #view(layer: number, which: keyof LayerPages): KvView {
    return this.#pages.view(layer, which, this);
  }
}
