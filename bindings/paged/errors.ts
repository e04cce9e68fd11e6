/**
 * What goes wrong in a paged cache beside wrong arguments.
 *
 * @module
 */
import { ChunkKvError } from "../../ffi/status.ts";

/**
 * The pool has too few blocks. Nothing has changed: free or compact a sequence and try again.
 *
 * @example A scheduler makes room
 * ```ts
 * import { OutOfBlocksError, PagedKvCache } from "chunkkv/paged";
 * import { assertEquals } from "@std/assert";
 *
 * using cache = new PagedKvCache({ numLayers: 1, numKvHeads: 1, headDim: 8, numBlocks: 2 });
 * using sequence = cache.createSequence();
 * try {
 *   sequence.append(100);
 * } catch (error) {
 *   if (!(error instanceof OutOfBlocksError)) throw error;
 *   assertEquals([error.needed, error.available], [7, 2]);
 * }
 * ```
 */
export class OutOfBlocksError extends ChunkKvError {
  /** Blocks that were asked for. */
  readonly needed: number;
  /** Blocks that were there: free ones and those that only the prefix cache holds. */
  readonly available: number;

  /**
   * The error of a pool that cannot give as many blocks.
   *
   * @param needed Blocks that were asked for.
   * @param available Blocks that were there.
   */
  constructor(needed: number, available: number) {
    super("out_of_memory", `Expected ${needed} available blocks but found ${available}`);
    this.needed = needed;
    this.available = available;
  }
}

/** The error of a call on something that is inside another one. */
export function busy(what: string): ChunkKvError {
  return new ChunkKvError("busy", `Expected an idle ${what} but found one inside a compaction`);
}

/** The error of a call on something that is gone. */
export function disposed(what: string): ChunkKvError {
  return new ChunkKvError("disposed", `Expected a live ${what} but found a disposed one`);
}
