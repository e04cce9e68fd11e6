/**
 * The blocks of a cache: which are free, how many tables hold each, and which hold a known prefix.
 *
 * @module
 */
import { ChunkKvError } from "../../ffi/status.ts";
import { BlockList } from "./block_list.ts";
import { OutOfBlocksError } from "./errors.ts";
import { checkInteger } from "./integers.ts";

/** Where the blocks of a pool are; `free + cached + used` is `total`. */
export interface PoolStats {
  /** Blocks in all. */
  readonly total: number;
  /** Blocks that hold nothing. */
  readonly free: number;
  /** Blocks that no sequence holds, kept for their prefix until the room is needed. */
  readonly cached: number;
  /** Blocks that sequences hold. */
  readonly used: number;
  /** Of the used ones, those that more than one sequence holds. */
  readonly shared: number;
}

/**
 * Hands out blocks by number and counts who holds them, as vLLM's block pool does. A block whose
 * last holder lets go is free at once, unless it is remembered under the hash of its prefix: then it
 * stays cached, and is evicted when no free one is left, the one let go longest ago first.
 *
 * @example A prefix outlives its sequence
 * ```ts
 * import { BlockPool } from "chunkkv/paged";
 * import { assertEquals } from "@std/assert";
 *
 * const pool = new BlockPool(4);
 * const blocks = pool.allocate(2);
 * pool.remember(blocks[0]!, "hash of the first block");
 * pool.release(blocks);
 * assertEquals(pool.stats, { total: 4, free: 3, cached: 1, used: 0, shared: 0 });
 * assertEquals(pool.find("hash of the first block"), blocks[0]);
 * ```
 */
export class BlockPool {
  readonly #refs: Int32Array;
  readonly #free: number[];
  readonly #cached: BlockList;
  readonly #hashes: (string | undefined)[];
  readonly #byHash = new Map<string, number>();
  #shared = 0;
  #generation = 0;

  /**
   * A pool of free blocks.
   *
   * @param numBlocks How many.
   * @throws {ChunkKvError} `invalid_argument` if that is no number of blocks.
   */
  constructor(numBlocks: number) {
    checkInteger("numBlocks", numBlocks, 1);
    this.#refs = new Int32Array(numBlocks);
    // Low numbers go first: rows that follow each other then lie beside each other.
    this.#free = Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
    this.#cached = new BlockList(numBlocks);
    this.#hashes = new Array<string | undefined>(numBlocks).fill(undefined);
  }

  /** Where the blocks are. */
  get stats(): PoolStats {
    const total = this.#refs.length, free = this.#free.length, cached = this.#cached.length;
    return { total, free, cached, used: total - free - cached, shared: this.#shared };
  }

  /** How often all prefixes were forgotten: rows of an earlier generation are not to be found. */
  get generation(): number {
    return this.#generation;
  }

  /** Blocks that can be allocated: free and cached ones. */
  get available(): number {
    return this.#free.length + this.#cached.length;
  }

  /**
   * Takes blocks, each held once. Free ones go first, then cached ones, which forget their prefix.
   *
   * @param count How many.
   * @returns Their numbers.
   * @throws {OutOfBlocksError} If there are fewer; nothing has changed then.
   */
  allocate(count: number): number[] {
    if (count > this.available) throw new OutOfBlocksError(count, this.available);
    return Array.from({ length: count }, () => {
      const block = this.#free.pop() ?? this.#evict();
      this.#refs[block] = 1;
      return block;
    });
  }

  /** Holds blocks once more. They are cached, or held by someone. */
  retain(blocks: readonly number[]): void {
    for (const block of blocks) {
      const refs = this.refCount(block);
      if (refs === 0) {
        if (this.#hashes[block] === undefined) throw broken(`block ${block} with rows`, "a free");
        this.#cached.remove(block);
      } else if (refs === 1) this.#shared++;
      this.#refs[block] = refs + 1;
    }
  }

  /** Lets go of blocks, given in the order of their table: the last ones are evicted first. */
  release(blocks: readonly number[]): void {
    for (let i = blocks.length - 1; i >= 0; i--) {
      const block = blocks[i]!;
      const refs = this.refCount(block);
      if (refs === 0) throw broken(`block ${block} with a holder`, "one without");
      this.#refs[block] = refs - 1;
      if (refs === 2) this.#shared--;
      if (refs > 1) continue;
      if (this.#hashes[block] === undefined) this.#free.push(block);
      else this.#cached.push(block);
    }
  }

  /** How many hold a block. */
  refCount(block: number): number {
    const refs = this.#refs[block];
    if (refs === undefined) throw broken(`a block below ${this.#refs.length}`, `${block}`);
    return refs;
  }

  /** Whether the only holder may write a block: it is not shared, and no prefix is found in it. */
  isWritable(block: number): boolean {
    return this.refCount(block) === 1 && this.#hashes[block] === undefined;
  }

  /**
   * Remembers what a held block holds.
   *
   * @param block The block.
   * @param hash Names its tokens and all before them.
   * @returns Whether it is found by that hash from now on; another block that holds the same stays.
   * @throws {ChunkKvError} If nobody holds it.
   */
  remember(block: number, hash: string): boolean {
    if (this.refCount(block) === 0) throw broken(`block ${block} with a holder`, "one without");
    if (this.#byHash.has(hash) || this.#hashes[block] !== undefined) return false;
    this.#hashes[block] = hash;
    this.#byHash.set(hash, block);
    return true;
  }

  /** The block that holds a prefix, held or cached. */
  find(hash: string): number | undefined {
    return this.#byHash.get(hash);
  }

  /** Forgets the prefixes of blocks; those that nobody holds are free then. */
  forget(blocks: readonly number[]): void {
    for (const block of blocks) {
      const hash = this.#hashes[block];
      if (hash === undefined) continue;
      this.#byHash.delete(hash);
      this.#hashes[block] = undefined;
      if (this.refCount(block) > 0) continue;
      this.#cached.remove(block);
      this.#free.push(block);
    }
  }

  /** Forgets all prefixes. */
  forgetAll(): void {
    this.#generation++;
    this.forget([...this.#byHash.values()]);
  }

  #evict(): number {
    const block = this.#cached.first;
    if (block === undefined) throw broken("a cached block", "none");
    this.forget([block]);
    this.#free.pop();
    return block;
  }
}

function broken(expected: string, found: string): ChunkKvError {
  return new ChunkKvError("internal", `Expected ${expected} but found ${found}`);
}
