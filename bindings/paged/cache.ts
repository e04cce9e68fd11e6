/**
 * The cache: a pool of blocks, the sequences in it, and the prefixes that it remembers.
 *
 * @module
 */
import type { CompressorOptions } from "../../ffi/compressor.ts";
import { PagedBatch } from "./batch.ts";
import type { PoolStats } from "./block_pool.ts";
import { BlockTable } from "./block_table.ts";
import { PagedCore } from "./core.ts";
import { checkInteger } from "./integers.ts";
import { type LayerPages, type PageOptions, Pages } from "./pages.ts";
import { Prefix, toTokens } from "./prefix.ts";
import type { WriteOptions } from "./rows.ts";
import { PagedSequence } from "./sequence.ts";

/** Settings of a {@linkcode PagedKvCache}. */
export interface PagedKvCacheOptions
  extends PageOptions, Pick<CompressorOptions, "threads" | "isa"> {
  /**
   * Whether full blocks are remembered by their tokens, so that later prompts with the same prefix
   * share them.
   *
   * @default {true}
   */
  prefixCaching?: boolean | undefined;
}

/** What a sequence begins with. */
export interface SequenceOptions {
  /**
   * Token ids of its prompt: full blocks with the same tokens that the cache remembers become its
   * first ones. The engine goes on by appending the tokens from `prefixLength` on.
   *
   * @default {no tokens}
   */
  prompt?: ArrayLike<number> | undefined;
  /**
   * Tokens at the end of the prompt that are computed in any case: at least 1 gives logits, and
   * those of a method's observation window give its queries.
   *
   * @default {1}
   */
  minNew?: number | undefined;
  /**
   * Only sequences of the same salt share prefixes: what else than tokens the rows depend on, such
   * as an adapter or an image.
   *
   * @default {""}
   */
  salt?: string | undefined;
}

/**
 * A paged KV cache with vLLM's semantics: blocks of `blockSize` tokens, a block table per sequence
 * that serves all layers, blocks shared by reference count, full blocks found again by the hash of
 * their prefix, the one unused for longest evicted first. Compaction moves the rows that stay and
 * gives the other blocks back to the pool at once.
 *
 * Keys and values lie in memory of its own or of the caller, on the CPU or on a GPU, and are compacted
 * there. It owns memory and threads: declare it
 * with `using`, or dispose it; its sequences are dead then.
 *
 * @example A prompt, its compaction, and a second prompt with the same beginning
 * ```ts
 * import { chunkKv, queryView } from "chunkkv";
 * import { PagedKvCache } from "chunkkv/paged";
 * import { assertEquals } from "@std/assert";
 *
 * const sizes = { numLayers: 1, numKvHeads: 2, headDim: 8, blockSize: 16, numBlocks: 64 };
 * using cache = new PagedKvCache({ ...sizes, dtype: "f32", threads: 1 });
 * const prompt = Array.from({ length: 500 }, (_, i) => i % 97);
 *
 * using sequence = cache.createSequence({ prompt });
 * const { slotMapping } = sequence.append(prompt);
 * const rows = new Float32Array(500 * 2 * 8).fill(0.1); // from the model
 * cache.write(0, { slotMapping, keys: rows, values: rows });
 *
 * const data = new Float32Array(4 * 32 * 8).fill(0.1); // queries of the last 32 tokens
 * const queries = [queryView({ data, numQHeads: 4, window: 32, headDim: 8 })];
 * const report = sequence.compact({ queries, method: chunkKv(), keep: 0.2 });
 * assertEquals([report.before, report.after], [500, 100]);
 * assertEquals([report.blocksBefore, report.blocksAfter], [32, 7]);
 *
 * using other = cache.createSequence({ prompt, minNew: 32 });
 * assertEquals(other.prefixLength, 464); // 29 full blocks, which nobody computes again
 * const { total, free, cached, used } = cache.stats;
 * assertEquals(free + cached + used, total);
 * ```
 */
export class PagedKvCache implements Disposable {
  readonly #core: PagedCore;
  readonly #prefixCaching: boolean;

  /**
   * A cache whose blocks are all free.
   *
   * @param options Sizes, memory and settings.
   * @throws {ChunkKvError} `invalid_argument` if sizes and memory do not fit; as `Compressor`.
   */
  constructor(options: PagedKvCacheOptions) {
    const { prefixCaching = true, threads = 0, isa = "best" } = options;
    const { device = "cpu", deviceIndex = 0 } = options;
    const pages = new Pages(options);
    try {
      this.#core = new PagedCore(pages, { threads, isa, device, deviceIndex });
    } catch (error) {
      pages[Symbol.dispose]();
      throw error;
    }
    this.#prefixCaching = prefixCaching;
  }

  /** Where the blocks are. */
  get stats(): PoolStats {
    return this.#core.pool.stats;
  }

  /** Tokens of a block. */
  get blockSize(): number {
    return this.#core.pages.blockSize;
  }

  /** Layers. */
  get numLayers(): number {
    return this.#core.pages.layers.length;
  }

  /** Bytes of one block in all layers, keys and values. */
  get blockBytes(): number {
    return this.#core.pages.blockBytes;
  }

  /**
   * The pages of a layer: views of no sequence, whose memory and strides an engine's kernels take.
   *
   * @param layer Which one.
   * @returns Keys and values, where they lie.
   * @throws {ChunkKvError} `invalid_argument` if there is no such layer; `disposed`.
   */
  layer(layer: number): LayerPages {
    return this.#core.pages.layer(layer);
  }

  /**
   * A new sequence, which begins with the blocks that hold a prefix of its prompt.
   *
   * @param options Its prompt.
   * @returns The sequence.
   * @throws {ChunkKvError} `invalid_argument` if a setting is out of its range; `disposed`.
   */
  createSequence(options: SequenceOptions = {}): PagedSequence {
    const { prompt = [], minNew = 1, salt = "" } = options;
    const { pages: { blockSize }, pool } = this.#core;
    checkInteger("minNew", minNew, 0);
    const tokens = toTokens(prompt);
    const prefix = this.#prefixCaching ? new Prefix(blockSize, salt) : undefined;
    const blocks: number[] = [];
    if (prefix) {
      prefix.push(tokens.subarray(0, Math.max(0, tokens.length - minNew)));
      prefix.advance((hash) => {
        const block = pool.find(hash);
        if (block === undefined) return false;
        blocks.push(block);
        return true;
      });
      prefix.takeBack(prefix.numPending);
      pool.retain(blocks);
    }
    const table = new BlockTable(blockSize, blocks);
    return new PagedSequence(this.#core, { table, length: table.capacity, dropped: 0, prefix });
  }

  /**
   * Sequences side by side.
   *
   * @param sequences Which ones.
   * @returns Their tables and lengths as they are now.
   * @throws {ChunkKvError} `disposed` if one of them or the cache is.
   */
  batch(sequences: readonly PagedSequence[]): PagedBatch {
    return new PagedBatch(this.#core.pages, sequences);
  }

  /**
   * Writes rows of one layer, for engines that compute in JavaScript or have them side by side;
   * others write where `layer` says.
   *
   * @param layer Which one.
   * @param options Rows and the slots that `append` gave.
   * @throws {ChunkKvError} `invalid_argument` if there is no such layer or slot, or rows are missing;
   * nothing is written then.
   */
  write(layer: number, options: WriteOptions): void {
    this.#core.write(layer, options);
  }

  /**
   * Forgets all prefixes, as after a change of the model's weights; cached blocks are free then. What
   * sequences that live now have, or append later, is not found by others.
   */
  forgetPrefixes(): void {
    this.#core.pool.forgetAll();
  }

  /** Frees memory and threads, after a running compaction if there is one. */
  [Symbol.dispose](): void {
    this.#core[Symbol.dispose]();
  }
}
