/**
 * One compaction of a sequence: what to select, which rows move where, and the table afterwards.
 *
 * @module
 */
import { Kept } from "../../ffi/kept.ts";
import { chunkKv, type Method } from "../../ffi/methods.ts";
import type { BudgetOptions, LogitOptions } from "../../ffi/params.ts";
import type { QueryView } from "../../ffi/query_view.ts";
import type { AnyKept } from "../../ffi/place.ts";
import type { CompactOptions, SelectFromKeysOptions } from "../../ffi/stages.ts";
import { check, ChunkKvError } from "../../ffi/status.ts";
import { PagedBatch } from "./batch.ts";
import type { BlockTable } from "./block_table.ts";
import type { PagedCore } from "./core.ts";
import { free } from "./place.ts";

/** What every compaction takes. */
export interface PagedTargetOptions {
  /**
   * Whether the sequence's blocks stay in the prefix cache: rows are then copied out of them. With
   * `false` those that it alone holds are forgotten there, and its rows move in place.
   *
   * @default {true}
   */
  keepPrefix?: boolean | undefined;
}

/** Compaction to what a method selects. */
export interface PagedSelectOptions extends PagedTargetOptions, BudgetOptions, LogitOptions {
  /** How tokens are chosen. @default {chunkKv()} */
  method?: Method | undefined;
  /**
   * Queries of the observation window, one view per layer; layers that reuse another's indices and
   * methods that do not score need none.
   */
  queries?: readonly (QueryView | undefined)[] | undefined;
}

/** Compaction to indices that were chosen elsewhere. */
export interface PagedKeptOptions extends PagedTargetOptions {
  /** What to keep: of each layer indices into the sequence's cached tokens, equally many. */
  kept: readonly Kept[];
}

/** What a compaction takes. */
export type PagedCompactOptions = PagedSelectOptions | PagedKeptOptions;

/** What a compaction did. */
export interface PagedCompactionReport {
  /** Tokens in the cache before. */
  readonly before: number;
  /** Tokens in the cache now. */
  readonly after: number;
  /** Blocks of the sequence before. */
  readonly blocksBefore: number;
  /** Blocks of the sequence now. */
  readonly blocksAfter: number;
  /** Fresh blocks among them: 0 where rows moved in place. */
  readonly blocksCopied: number;
  /** What each layer kept: indices into the tokens that were cached before. */
  readonly kept: readonly Kept[];
}

/** A compaction under way; either `finish` or `abort` ends it. */
export class Compaction {
  /** What has to be selected, in this order; nothing where the caller has chosen. */
  readonly selections: readonly SelectFromKeysOptions[];
  readonly #core: PagedCore;
  readonly #table: BlockTable;
  readonly #length: number;
  readonly #batch: PagedBatch;
  readonly #options: PagedCompactOptions;
  #kept: readonly Kept[] = [];
  #fresh: number[] = [];
  #target: PagedBatch | undefined;
  #moving: AnyKept[] = [];
  // Leading blocks whose rows all stay where they are, and rows that are kept.
  #lead = 0;
  #after = 0;

  /**
   * @param core The cache.
   * @param table The sequence's blocks; nobody changes them until this has ended.
   * @param length Its tokens.
   * @param options What to keep.
   * @throws {ChunkKvError} `invalid_argument` if layers are missing.
   */
  constructor(core: PagedCore, table: BlockTable, length: number, options: PagedCompactOptions) {
    this.#core = core;
    this.#table = table;
    this.#length = length;
    this.#options = options;
    this.#batch = new PagedBatch(core.pages, [{ blocks: table.blocks, length }]);
    check(length > 0, "tokens to compact", 0);
    this.selections = "kept" in options ? [] : this.#selections(options);
  }

  /**
   * Chooses blocks for what was selected. Only blocks that no one else reads are written.
   *
   * @param selected What each selection chose.
   * @returns The moves, in any order.
   * @throws {OutOfBlocksError} If rows must be copied out and there is no room.
   * @throws {ChunkKvError} `invalid_argument` or `unsupported` if the layers' indices do not fit.
   */
  plan(selected: readonly AnyKept[]): CompactOptions[] {
    const { pages } = this.#core;
    this.#kept = "kept" in this.#options
      ? this.#options.kept
      : this.#spread(selected.map((kept) => pages.place.chosen(kept)));
    this.#checkKept();
    pages.checkMemory();
    this.#after = this.#kept[0]!.lens[0]!;
    const { blockSize } = this.#table;
    const stay = unmoved(this.#kept, this.#after);
    if (stay === this.#after) return [];
    this.#lead = Math.floor(stay / blockSize);
    const inPlace = this.#canMoveInPlace();
    const first = inPlace ? 0 : this.#lead * blockSize;
    if (!inPlace) {
      const rows = this.#after - first;
      this.#fresh = this.#core.pool.allocate(this.#table.blocksFor(rows));
      this.#target = new PagedBatch(pages, [{ blocks: this.#fresh, length: rows }]);
    }
    this.#moving = this.#kept.map((kept) =>
      pages.place.kept(first > 0 ? withoutFirst(kept, first) : kept)
    );
    return this.#moving.map((kept, layer) => ({
      ...pages.moved(layer, this.#batch.tables),
      kept,
      to: this.#target && pages.moved(layer, this.#target.tables),
    }));
  }

  /** Puts the table in order after the moves, and lets go of what is not needed any more. */
  finish(): PagedCompactionReport {
    this.#letGo();
    const blocksBefore = this.#table.blocks.length;
    if (this.#after < this.#length) {
      const copied = this.#fresh.length > 0;
      const stay = copied ? this.#lead : this.#table.blocksFor(this.#after);
      this.#core.pool.release(this.#table.replaceFrom(stay, this.#fresh));
    }
    return {
      before: this.#length,
      after: this.#after,
      blocksBefore,
      blocksAfter: this.#table.blocks.length,
      blocksCopied: this.#fresh.length,
      kept: this.#kept,
    };
  }

  /** Gives back what `plan` took. */
  abort(): void {
    this.#letGo();
    this.#core.pool.release(this.#fresh);
    this.#fresh = [];
  }

  #letGo(): void {
    this.#batch[Symbol.dispose]();
    this.#target?.[Symbol.dispose]();
    this.#moving.splice(0).forEach(free);
  }

  #selections(options: PagedSelectOptions): SelectFromKeysOptions[] {
    const { method = chunkKv(), queries = [], budget, keep, scale, logitSoftcap } = options;
    const numLayers = this.#core.pages.layers.length;
    if (method.name === "pyramidkv") {
      throw new ChunkKvError(
        "unsupported",
        "Expected a method that keeps as many tokens in each layer, since one block table serves " +
          "all layers, but found pyramidkv",
      );
    }
    check(
      queries.length === 0 || queries.length === numLayers,
      `queries of ${numLayers} layers`,
      queries.length,
    );
    const reuse = reuseOf(method);
    return Array.from({ length: Math.ceil(numLayers / reuse) }, (_, group) => ({
      method,
      budget,
      keep,
      scale,
      logitSoftcap,
      queries: queries[group * reuse],
      keys: this.#batch.keys(group * reuse),
    }));
  }

  #spread(selected: readonly Kept[]): Kept[] {
    const { method = chunkKv() } = this.#options as PagedSelectOptions;
    const reuse = reuseOf(method);
    return this.#core.pages.layers.map((_, layer) => selected[Math.floor(layer / reuse)]!);
  }

  // A later layer must not be found wrong when the rows of an earlier one have moved.
  #checkKept(): void {
    const { layers } = this.#core.pages;
    check(
      this.#kept.length === layers.length,
      `kept of ${layers.length} layers`,
      this.#kept.length,
    );
    const after = this.#kept[0]!.lens[0];
    this.#kept.forEach((kept, layer) => {
      const heads = kept.numHeads === 1 ? 1 : layers[layer]!.keys.numKvHeads;
      check(
        kept.batch === 1 && kept.numHeads === heads,
        `kept of layer ${layer} for 1 sequence, with 1 set or one per kv head,`,
        `${kept.batch} sequences and ${kept.numHeads} sets`,
      );
      if (kept.lens[0] !== after) {
        throw new ChunkKvError(
          "unsupported",
          `Expected ${after} tokens in layer ${layer} as in layer 0, since one block table serves ` +
            `all layers, but found ${kept.lens[0]}: fill "exact" keeps them equal`,
        );
      }
      if (!("kept" in this.#options)) return; // what C selects rises
      for (let head = 0; head < heads; head++) {
        const set = kept.at(0, head);
        check(set.length === after, `${after} kept indices of layer ${layer}`, set.length);
        checkRising(set, this.#length, layer);
      }
    });
  }

  #canMoveInPlace(): boolean {
    const { pool } = this.#core;
    const written = this.#table.blocks.slice(0, this.#table.blocksFor(this.#after));
    if (this.#options.keepPrefix === false && written.every((one) => pool.refCount(one) === 1)) {
      // Without the first blocks nobody finds the later ones.
      pool.forget(this.#table.blocks.filter((block) => pool.refCount(block) === 1));
    }
    return written.every((block) => pool.isWritable(block));
  }
}

function reuseOf(method: Method): number {
  return method.name === "chunkkv" ? method.reuse : 1;
}

/** Rows that every set of every layer leaves where they are. */
function unmoved(kept: readonly Kept[], after: number): number {
  let rows = after;
  for (const one of kept) {
    for (let head = 0; head < one.numHeads; head++) {
      const set = one.at(0, head);
      // Rising indices: set[i] === i means that none before it has moved.
      let low = 0;
      while (low < rows) {
        const middle = Math.ceil((low + rows) / 2);
        if (set[middle - 1] === middle - 1) low = middle;
        else rows = middle - 1;
      }
    }
  }
  return rows;
}

function withoutFirst(kept: Kept, rows: number): Kept {
  const sets = Array.from({ length: kept.numHeads }, (_, head) => kept.at(0, head).subarray(rows));
  return Kept.from([sets]);
}

function checkRising(set: Int32Array, length: number, layer: number): void {
  let previous = -1;
  for (const index of set) {
    if (!(index > previous && index < length)) {
      throw new ChunkKvError(
        "invalid_argument",
        `Expected kept indices of layer ${layer} to rise inside 0 to ${length - 1} but found ` +
          `${index} after ${previous}`,
      );
    }
    previous = index;
  }
}
