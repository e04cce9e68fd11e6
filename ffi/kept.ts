/**
 * Kept token indices: what selection returns and compaction takes.
 *
 * @module
 */
import { check } from "./status.ts";

/**
 * Kept token indices, ascending, of each sequence: one set for all kv heads (`numHeads` 1), or one
 * per kv head. The memory is one `Int32Array` that C reads and writes.
 */
export class Kept {
  /** Sequences. */
  readonly batch: number;
  /** Index sets of a sequence: 1, or one per kv head. */
  readonly numHeads: number;
  /** Room for indices in each set. */
  readonly capacity: number;
  /** All sets, `[batch, numHeads, capacity]`; the first `lens[b]` of each are valid. */
  readonly data: Int32Array<ArrayBuffer>;
  /** Tokens kept of each sequence, `[batch]`. */
  readonly lens: Int32Array<ArrayBuffer>;

  /**
   * Room for index sets, all empty.
   *
   * @param batch Sequences.
   * @param numHeads Index sets of a sequence.
   * @param capacity Room for indices in each set.
   */
  constructor(batch: number, numHeads: number, capacity: number) {
    this.batch = batch;
    this.numHeads = numHeads;
    this.capacity = capacity;
    this.data = new Int32Array(batch * numHeads * capacity);
    this.lens = new Int32Array(batch);
  }

  /**
   * Indices that were chosen elsewhere.
   *
   * @param indices Of each sequence one set, or one per kv head, each ascending.
   * @returns A copy of them.
   * @throws {ChunkKvError} `invalid_argument` if the sets of a sequence differ in length, or the
   * sequences in their number of sets.
   *
   * @example One sequence, one set for all heads
   * ```ts
   * import { Kept } from "chunkkv";
   * import { assertEquals } from "@std/assert";
   *
   * const kept = Kept.from([[[0, 2, 5]]]);
   * assertEquals(kept.at(0), Int32Array.of(0, 2, 5));
   * ```
   */
  static from(indices: readonly (readonly ArrayLike<number>[])[]): Kept {
    const numHeads = indices[0]?.length ?? 1;
    const capacity = Math.max(0, ...indices.flat().map((set) => set.length));
    const kept = new Kept(indices.length, numHeads, capacity);
    indices.forEach((sets, b) => {
      check(sets.length === numHeads, `${numHeads} index sets in sequence ${b}`, sets.length);
      const length = sets[0]?.length ?? 0;
      sets.forEach((set, head) => {
        check(
          set.length === length,
          `${length} indices in set ${head} of sequence ${b}`,
          set.length,
        );
        for (let i = 0; i < set.length; i++) {
          check(
            Number.isInteger(set[i]),
            `indices of sequence ${b}, set ${head} to be integers`,
            set[i],
          );
        }
        kept.data.set(set, (b * numHeads + head) * capacity);
      });
      kept.lens[b] = length;
    });
    return kept;
  }

  /**
   * The indices of one set.
   *
   * @param sequence Which sequence.
   * @param head Which kv head; any where one set serves all.
   * @returns A view of them, not a copy.
   * @throws {ChunkKvError} `invalid_argument` if there is no such set.
   */
  at(sequence: number, head = 0): Int32Array<ArrayBuffer> {
    const length = this.lens[sequence];
    check(length !== undefined, `sequence to be 0 to ${this.batch - 1}`, sequence);
    const set = this.numHeads === 1 ? 0 : head;
    check(
      Number.isInteger(head) && head >= 0 && set < this.numHeads,
      `head to be 0 to ${this.numHeads - 1}`,
      head,
    );
    const begin = (sequence * this.numHeads + set) * this.capacity;
    return this.data.subarray(begin, begin + length);
  }

  /** The indices of every set, `[batch][numHeads]`: views, not copies. */
  get indices(): Int32Array<ArrayBuffer>[][] {
    return Array.from(
      { length: this.batch },
      (_, b) => Array.from({ length: this.numHeads }, (_, head) => this.at(b, head)),
    );
  }
}
