/**
 * One sequence of a paged cache.
 *
 * @module
 */
import type { KvView } from "../../ffi/kv_view.ts";
import { PagedBatch } from "./batch.ts";
import { BlockTable } from "./block_table.ts";
import { Compaction, type PagedCompactionReport, type PagedCompactOptions } from "./compaction.ts";
import type { PagedCore } from "./core.ts";
import { busy, disposed } from "./errors.ts";
import { checkInteger } from "./integers.ts";
import { type Prefix, toTokens } from "./prefix.ts";
import { run, runAsync } from "./run.ts";

/** Where new tokens go, as an engine's step takes it. */
export interface AppendedSlots {
  /** Position of each token: what its RoPE angle comes from. */
  readonly positions: Int32Array<ArrayBuffer>;
  /** Slot of each token: `block * blockSize + offset`. */
  readonly slotMapping: Int32Array<ArrayBuffer>;
}

/** What a sequence begins with. */
export interface SequenceStart {
  readonly table: BlockTable;
  readonly length: number;
  readonly dropped: number;
  readonly prefix: Prefix | undefined;
}

/**
 * The block table of one sequence, and what happens to it. Made by `PagedKvCache.createSequence`
 * and {@linkcode PagedSequence.fork}. It holds blocks of the pool: declare it with `using`, or
 * dispose it.
 *
 * @example Positions go on while slots fall back
 * ```ts
 * import { PagedKvCache } from "chunkkv/paged";
 * import { Kept } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * const sizes = { numLayers: 1, numKvHeads: 1, headDim: 8, blockSize: 4, numBlocks: 8 };
 * using cache = new PagedKvCache(sizes);
 * using sequence = cache.createSequence();
 * sequence.append(10);
 * sequence.compact({ kept: [Kept.from([[[0, 1, 8, 9]]])] });
 * const { positions, slotMapping } = sequence.append(1);
 * assertEquals([positions[0], slotMapping[0]], [10, 1 * 4 + 0]);
 * assertEquals(sequence.length, 5); // what attention sees
 * ```
 */
export class PagedSequence implements Disposable {
  /** Tokens that it began with, from the prefix cache or a fork: their rows are there already. */
  readonly prefixLength: number;
  readonly #core: PagedCore;
  readonly #table: BlockTable;
  #length: number;
  #committed: number;
  #dropped: number;
  // Gone as soon as rows are no longer those of all tokens before them, or prefixes were forgotten.
  #prefix: Prefix | undefined;
  readonly #generation: number;
  #busy = false;
  #disposed = false;

  /** Internal: `PagedKvCache.createSequence` makes sequences. */
  constructor(core: PagedCore, start: SequenceStart) {
    this.#core = core;
    this.#table = start.table;
    this.#length = this.#committed = this.prefixLength = start.length;
    this.#dropped = start.dropped;
    this.#prefix = start.prefix;
    this.#generation = core.pool.generation;
  }

  /** Tokens in the cache: what attention sees, vLLM's `seq_len`. */
  get length(): number {
    return this.#length;
  }

  /** Tokens that compaction has dropped. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Tokens seen: the position of the next one. */
  get position(): number {
    return this.#length + this.#dropped;
  }

  /** Its blocks, in the order of its tokens. */
  get blocks(): readonly number[] {
    return this.#live.blocks;
  }

  /** Whether it has been disposed. */
  get isDisposed(): boolean {
    return this.#disposed;
  }

  /**
   * The keys of a layer, where they lie.
   *
   * @param layer Which one.
   * @returns A view of the tokens that it has now.
   * @throws {ChunkKvError} `invalid_argument` if there is no such layer; `disposed`.
   */
  keys(layer: number): KvView {
    return new PagedBatch(this.#core.pages, [this]).keys(layer);
  }

  /**
   * The values of a layer, where they lie.
   *
   * @param layer Which one.
   * @returns A view of the tokens that it has now.
   * @throws {ChunkKvError} `invalid_argument` if there is no such layer; `disposed`.
   */
  values(layer: number): KvView {
    return new PagedBatch(this.#core.pages, [this]).values(layer);
  }

  /**
   * Makes room for new tokens. The engine writes their rows to the slots, then calls `commit`, or
   * `rollback` if it could not; the next `append`, `fork` or `compact` commits, too. A last block
   * that a fork shares is copied first.
   *
   * @param tokens Their ids; or how many: then blocks from here on are not found by other prompts.
   * @returns Positions and slots.
   * @throws {OutOfBlocksError} If the pool has too few blocks; the sequence is as it was.
   * @throws {ChunkKvError} `invalid_argument`; `busy` while it is compacted; `disposed`.
   */
  append(tokens: ArrayLike<number> | number): AppendedSlots {
    const table = this.#idle;
    if (typeof tokens === "number") checkInteger("tokens", tokens, 0);
    const ids = typeof tokens === "number" ? undefined : toTokens(tokens);
    const count = ids?.length ?? tokens as number;
    const begin = this.#length, end = begin + count;
    checkInteger("tokens of the sequence", this.position + count, 0);
    this.commit();
    if (count > 0) this.#makeRoom(table, end);
    if (ids === undefined && count > 0) this.#prefix = undefined;
    else if (ids) this.#prefix?.push(ids);
    const first = this.position;
    this.#length = end;
    return {
      positions: Int32Array.from({ length: count }, (_, i) => first + i),
      slotMapping: table.slots(begin, end),
    };
  }

  /** Says that all rows are written: full blocks can be found by other prompts from now on. */
  commit(): void {
    const table = this.#idle;
    if (this.#generation !== this.#core.pool.generation) this.#prefix = undefined;
    if (this.#prefix) {
      let block = table.blocksFor(this.#length - this.#prefix.numPending);
      this.#prefix.advance((hash) => {
        this.#core.pool.remember(table.blocks[block++]!, hash);
        return true;
      });
    }
    this.#committed = this.#length;
  }

  /** Takes back what was appended since the last commit, such as a step that failed. */
  rollback(): void {
    const table = this.#idle;
    this.#prefix?.takeBack(Math.min(this.#length - this.#committed, this.#prefix.numPending));
    this.#length = this.#committed;
    this.#core.pool.release(table.replaceFrom(table.blocksFor(this.#length), []));
  }

  /**
   * A second sequence with the same tokens. Both hold the same blocks; whoever appends first copies
   * the last one if it is not full.
   *
   * @returns The new sequence.
   * @throws {ChunkKvError} `busy` while this one is compacted; `disposed`.
   */
  fork(): PagedSequence {
    const { blocks, blockSize } = this.#idle;
    this.commit();
    this.#core.pool.retain(blocks);
    return new PagedSequence(this.#core, {
      table: new BlockTable(blockSize, blocks),
      length: this.#length,
      dropped: this.#dropped,
      prefix: this.#prefix?.fork(),
    });
  }

  /**
   * Keeps the tokens that matter most, in every layer its own, and lets go of the blocks that are
   * left over. Rows move in place where the sequence alone holds the blocks that are written; blocks
   * that are shared or hold a known prefix are left as they are, and rows are copied to fresh ones.
   *
   * @param options What to keep.
   * @returns What it did.
   * @throws {OutOfBlocksError} If there is no room for a copy.
   * @throws {ChunkKvError} As `Compressor.select`; `unsupported` if layers keep unequally many
   * tokens; `busy` during a `compactAsync`. In every case nothing has changed.
   */
  compact(options: PagedCompactOptions): PagedCompactionReport {
    const compressor = this.#core.idleCompressor;
    const compaction = this.#begin(options);
    try {
      run(compaction, compressor);
      return this.#finish(compaction);
    } catch (error) {
      compaction.abort();
      throw error;
    } finally {
      this.#leave();
    }
  }

  /**
   * As {@linkcode PagedSequence.compact}, on another thread. Other sequences can go on meanwhile;
   * several of these calls take turns.
   */
  async compactAsync(options: PagedCompactOptions): Promise<PagedCompactionReport> {
    const compaction = this.#begin(options);
    try {
      return await this.#core.takeTurn(async (compressor) => {
        await runAsync(compaction, compressor);
        return this.#finish(compaction);
      });
    } catch (error) {
      compaction.abort();
      throw error;
    } finally {
      this.#leave();
    }
  }

  /** Lets go of its blocks, after a running compaction if there is one. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    if (this.#busy) return;
    this.#core.pool.release(this.#table.replaceFrom(0, []));
    this.#length = this.#committed = 0;
  }

  get #live(): BlockTable {
    this.#core.checkLive();
    if (this.#disposed) throw disposed("PagedSequence");
    return this.#table;
  }

  get #idle(): BlockTable {
    if (this.#busy) throw busy("PagedSequence");
    return this.#live;
  }

  #makeRoom(table: BlockTable, end: number): void {
    const { pool } = this.#core;
    const rows = this.#length % table.blockSize;
    const last = table.blocks.length - 1;
    const shared = rows > 0 && !pool.isWritable(table.blocks[last]!);
    const fresh = pool.allocate(table.blocksFor(end) - table.blocks.length + Number(shared));
    if (shared) {
      try {
        this.#core.copyBlock(table.blocks[last]!, fresh[0]!, rows);
      } catch (error) {
        pool.release(fresh);
        throw error;
      }
      pool.release(table.replaceFrom(last, fresh));
    } else {
      table.push(fresh);
    }
  }

  #begin(options: PagedCompactOptions): Compaction {
    const table = this.#idle;
    this.commit();
    const compaction = new Compaction(this.#core, table, this.#length, options);
    this.#busy = true;
    return compaction;
  }

  #finish(compaction: Compaction): PagedCompactionReport {
    const report = compaction.finish();
    if (report.after < report.before) {
      this.#prefix = undefined;
      this.#dropped += report.before - report.after;
      this.#length = this.#committed = report.after;
    }
    return report;
  }

  #leave(): void {
    this.#busy = false;
    if (this.#disposed) this[Symbol.dispose]();
  }
}
