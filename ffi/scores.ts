/**
 * Token scores: what scoring returns and selection takes.
 *
 * @module
 */
import { check } from "./status.ts";

/**
 * Token scores, `[batch, numHeads, kvLen]`: the attention that the observation window pays to each
 * token. The newest tokens, the window itself, have none; their entries are 0. Ranks of a
 * tensor-parallel model sum `data` before they select, so that all choose the same tokens.
 */
export class Scores {
  /** Sequences. */
  readonly batch: number;
  /** Rows of a sequence: 1 (summed over all heads), one per kv head, or 0 (not scored). */
  readonly numHeads: number;
  /** Tokens of each sequence; with `kvLens` the most of any. */
  readonly kvLen: number;
  /** Tokens of each sequence, `[batch]`, where they differ. */
  readonly kvLens: Int32Array<ArrayBuffer> | undefined;
  /** All rows. */
  readonly data: Float32Array<ArrayBuffer>;

  /**
   * Rows of scores.
   *
   * @param batch Sequences.
   * @param numHeads Rows of a sequence.
   * @param kvLen Tokens of each sequence; with `kvLens` the most of any.
   * @param kvLens Tokens of each sequence.
   * @param data All rows, not copied; zeros if it is left out.
   * @throws {ChunkKvError} `invalid_argument` if `data` is too short.
   */
  constructor(
    batch: number,
    numHeads: number,
    kvLen: number,
    kvLens?: Int32Array<ArrayBuffer>,
    data: Float32Array<ArrayBuffer> = new Float32Array(batch * numHeads * kvLen),
  ) {
    check(
      data.length >= batch * numHeads * kvLen,
      `at least ${batch * numHeads * kvLen} token scores`,
      data.length,
    );
    this.batch = batch;
    this.numHeads = numHeads;
    this.kvLen = kvLen;
    this.kvLens = kvLens;
    this.data = data;
  }

  /**
   * The scores of one row.
   *
   * @param sequence Which sequence.
   * @param head Which row of it.
   * @returns A view of its `kvLens[sequence]` scores, not a copy.
   * @throws {ChunkKvError} `invalid_argument` if there is no such row.
   */
  at(sequence: number, head = 0): Float32Array<ArrayBuffer> {
    check(
      Number.isInteger(sequence) && sequence >= 0 && sequence < this.batch,
      `sequence to be 0 to ${this.batch - 1}`,
      sequence,
    );
    check(
      Number.isInteger(head) && head >= 0 && head < this.numHeads,
      `head to be 0 to ${this.numHeads - 1}`,
      head,
    );
    const begin = (sequence * this.numHeads + head) * this.kvLen;
    return this.data.subarray(begin, begin + (this.kvLens?.[sequence] ?? this.kvLen));
  }
}
