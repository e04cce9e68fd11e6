/**
 * Token scores and kept indices on a GPU.
 *
 * @module
 */
import { DeviceBuffer, type DeviceOptions } from "./device_buffer.ts";
import { Kept } from "./kept.ts";
import { Scores } from "./scores.ts";

/** As {@linkcode Scores}, on a GPU. It owns its memory: declare it with `using`, or dispose it. */
export class DeviceScores implements Disposable {
  /** Sequences. */
  readonly batch: number;
  /** Rows of a sequence: 1 (summed over all heads), one per kv head, or 0 (not scored). */
  readonly numHeads: number;
  /** Tokens of each sequence; with `kvLens` the most of any. */
  readonly kvLen: number;
  /** Tokens of each sequence, `[batch]` of int32, where they differ; the caller's. */
  readonly kvLens: DeviceBuffer | undefined;
  /** All rows, `[batch, numHeads, kvLen]` of f32. */
  readonly data: DeviceBuffer;

  /**
   * Rows of scores.
   *
   * @param batch Sequences.
   * @param numHeads Rows of a sequence.
   * @param kvLen Tokens of each sequence; with `kvLens` the most of any.
   * @param kvLens Tokens of each sequence, `[batch]` of int32.
   * @param options Which GPU.
   * @throws {ChunkKvError} As `DeviceBuffer`.
   */
  constructor(
    batch: number,
    numHeads: number,
    kvLen: number,
    kvLens?: DeviceBuffer,
    options: DeviceOptions = {},
  ) {
    this.batch = batch;
    this.numHeads = numHeads;
    this.kvLen = kvLen;
    this.kvLens = kvLens;
    this.data = new DeviceBuffer(4 * batch * numHeads * kvLen, options);
  }

  /**
   * Copies them to this machine's memory.
   *
   * @returns The copy.
   * @throws {ChunkKvError} `disposed`.
   */
  download(): Scores {
    const kvLens = this.kvLens?.downloadInto(new Int32Array(this.batch));
    const scores = new Scores(this.batch, this.numHeads, this.kvLen, kvLens);
    this.data.downloadInto(scores.data);
    return scores;
  }

  /** Frees the memory; doing it again is harmless. */
  [Symbol.dispose](): void {
    this.data[Symbol.dispose]();
  }
}

/** As {@linkcode Kept}, on a GPU. It owns its memory: declare it with `using`, or dispose it. */
export class DeviceKept implements Disposable {
  /** Sequences. */
  readonly batch: number;
  /** Index sets of a sequence: 1, or one per kv head. */
  readonly numHeads: number;
  /** Room for indices in each set. */
  readonly capacity: number;
  /** All sets, `[batch, numHeads, capacity]` of int32; the first `lens[b]` of each are valid. */
  readonly data: DeviceBuffer;
  /** Tokens kept of each sequence, `[batch]` of int32. */
  readonly lens: DeviceBuffer;

  /**
   * Room for index sets.
   *
   * @param batch Sequences.
   * @param numHeads Index sets of a sequence.
   * @param capacity Room for indices in each set.
   * @param options Which GPU.
   * @throws {ChunkKvError} As `DeviceBuffer`.
   */
  constructor(batch: number, numHeads: number, capacity: number, options: DeviceOptions = {}) {
    this.batch = batch;
    this.numHeads = numHeads;
    this.capacity = capacity;
    this.data = new DeviceBuffer(4 * batch * numHeads * capacity, options);
    try {
      this.lens = new DeviceBuffer(4 * batch, options);
    } catch (error) {
      this.data[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Uploads indices that were chosen elsewhere.
   *
   * @param kept The indices.
   * @param options Which GPU.
   * @returns A copy of them.
   * @throws {ChunkKvError} As `DeviceBuffer`.
   */
  static from(kept: Kept, options: DeviceOptions = {}): DeviceKept {
    const copy = new DeviceKept(kept.batch, kept.numHeads, kept.capacity, options);
    try {
      copy.data.upload(kept.data);
      copy.lens.upload(kept.lens);
      return copy;
    } catch (error) {
      copy[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Copies them to this machine's memory.
   *
   * @returns The copy.
   * @throws {ChunkKvError} `disposed`.
   */
  download(): Kept {
    const kept = new Kept(this.batch, this.numHeads, this.capacity);
    this.data.downloadInto(kept.data);
    this.lens.downloadInto(kept.lens);
    return kept;
  }

  /** Frees the memory; doing it again is harmless. */
  [Symbol.dispose](): void {
    this.data[Symbol.dispose]();
    this.lens[Symbol.dispose]();
  }
}
