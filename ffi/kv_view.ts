/**
 * Descriptions of keys and values where they lie: nothing is copied.
 *
 * @module
 */
import { type DataOptions, deviceOf, dtypeOf, type KvData, rowBytes } from "./data.ts";
import type { DeviceBuffer } from "./device_buffer.ts";
import type { Device, Dtype } from "./enums.ts";
import { check } from "./status.ts";

/**
 * Keys or values of one layer: rows of `headDim` elements, one per sequence, kv head and token.
 * Strides are in bytes. Made by {@linkcode contiguousKv}, {@linkcode stridedKv} or
 * {@linkcode pagedKv}; `{ ...view, kvLen }` is a view of fewer tokens.
 */
export interface KvView {
  /** The memory. */
  readonly data: KvData;
  /** Element type. */
  readonly dtype: Dtype;
  /** Where the data lies. */
  readonly device: Device;
  /** Sequences. */
  readonly batch: number;
  /** Key-value heads. */
  readonly numKvHeads: number;
  /** Elements of a row; a multiple of 32 for `q8_0` and `q4_0`. */
  readonly headDim: number;
  /** Tokens of each sequence; with `kvLens` the most of any. */
  readonly kvLen: number;
  /** Tokens of each sequence, `[batch]`, where the data is. */
  readonly kvLens?: Int32Array<ArrayBuffer> | DeviceBuffer | undefined;
  /** Bytes from one sequence to the next (not paged). */
  readonly strideBatch: number;
  /** Bytes from one head to the next. */
  readonly strideHead: number;
  /** Bytes from one token to the next; inside a block where paged. */
  readonly strideToken: number;
  /** Bytes from one block to the next; 0 where not paged. */
  readonly strideBlock: number;
  /** Tokens of a block; 0 where not paged. */
  readonly blockSize: number;
  /** Blocks of each sequence, `[batch, maxBlocks]`, where the data is. */
  readonly blockTable?: Int32Array<ArrayBuffer> | DeviceBuffer | undefined;
  /** Entries in a row of `blockTable`. */
  readonly maxBlocks: number;
  /** Blocks in the memory: entries of `blockTable` lie in `[0, numBlocks)`. */
  readonly numBlocks: number;
}

/** Sizes that all views of keys and values have. */
export interface KvShape {
  /** Sequences. @default {1} */
  batch?: number | undefined;
  /** Key-value heads. */
  numKvHeads: number;
  /** Tokens of each sequence; with `kvLens` the most of any. */
  kvLen: number;
  /** Elements of a row. */
  headDim: number;
  /**
   * Tokens of each sequence, `[batch]`, where they differ; read at every use, not copied. On a GPU
   * int32 there.
   */
  kvLens?: Int32Array<ArrayBuffer> | DeviceBuffer | undefined;
}

/** What {@linkcode contiguousKv} takes. */
export interface ContiguousKvOptions extends DataOptions, KvShape {
  /** Tokens that the array has room for. @default {kvLen} */
  capacity?: number | undefined;
}

/**
 * Keys or values that lie as `[batch, numKvHeads, capacity, headDim]`.
 *
 * @param options Memory and sizes.
 * @returns The view.
 * @throws {ChunkKvError} `invalid_argument` if sizes and memory do not fit.
 *
 * @example Two heads of 100 tokens in f32
 * ```ts
 * import { contiguousKv } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * const keys = contiguousKv({
 *   data: new Float32Array(2 * 100 * 64),
 *   numKvHeads: 2,
 *   kvLen: 100,
 *   headDim: 64,
 * });
 * assertEquals(keys.strideHead, 100 * 64 * 4);
 * ```
 */
export function contiguousKv(options: ContiguousKvOptions): KvView {
  const { kvLen, capacity = kvLen, numKvHeads, headDim } = options;
  check(
    Number.isInteger(capacity) && capacity >= kvLen,
    `capacity to be an integer of at least kvLen ${kvLen}`,
    capacity,
  );
  const strideToken = rowBytes(dtypeOf(options), headDim);
  const strideHead = strideToken * capacity;
  return stridedKv({ ...options, strideToken, strideHead, strideBatch: strideHead * numKvHeads });
}

/** What {@linkcode stridedKv} takes. */
export interface StridedKvOptions extends DataOptions, KvShape {
  /** Bytes from one sequence to the next. @default {0} */
  strideBatch?: number | undefined;
  /** Bytes from one head to the next. */
  strideHead: number;
  /** Bytes from one token to the next. */
  strideToken: number;
}

/**
 * Keys or values whose row `(b, h, t)` is at `b * strideBatch + h * strideHead + t * strideToken`
 * bytes, such as llama.cpp's `[token, head * headDim]`.
 *
 * @param options Memory, sizes and strides.
 * @returns The view.
 * @throws {ChunkKvError} `invalid_argument` if sizes and memory do not fit; what lies outside the
 * memory is found at use.
 *
 * @example Heads side by side in each token's cell
 * ```ts
 * import { stridedKv } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * const keys = stridedKv({
 *   data: new Uint16Array(100 * 2 * 64),
 *   dtype: "f16",
 *   numKvHeads: 2,
 *   kvLen: 100,
 *   headDim: 64,
 *   strideHead: 64 * 2,
 *   strideToken: 2 * 64 * 2,
 * });
 * assertEquals(keys.blockSize, 0);
 * ```
 */
export function stridedKv(options: StridedKvOptions): KvView {
  const { strideBatch = 0, strideHead, strideToken } = options;
  return {
    ...base(options),
    strideBatch,
    strideHead,
    strideToken,
    strideBlock: 0,
    blockSize: 0,
    maxBlocks: 0,
    numBlocks: 0,
  };
}

/** What {@linkcode pagedKv} takes. */
export interface PagedKvOptions extends DataOptions, KvShape {
  /** Tokens of a block. */
  blockSize: number;
  /** Blocks in the memory. */
  numBlocks: number;
  /** Blocks of each sequence, `[batch, maxBlocks]`; read at every use, not copied. As `kvLens`. */
  blockTable: Int32Array<ArrayBuffer> | DeviceBuffer;
  /** Entries in a row of `blockTable`. @default {the entries of blockTable / batch} */
  maxBlocks?: number | undefined;
  /**
   * How a block's rows lie: `nhd` is `[blockSize, numKvHeads, headDim]`, `hnd` is
   * `[numKvHeads, blockSize, headDim]`. @default {"nhd"}
   */
  layout?: "nhd" | "hnd" | undefined;
  /** Bytes from one block to the next. @default {the bytes of a block's rows} */
  strideBlock?: number | undefined;
}

/**
 * Keys or values in blocks of `blockSize` tokens, as vLLM has them: token `t` of sequence `b` lies
 * in block `blockTable[b * maxBlocks + floor(t / blockSize)]`. With `blockSize` 1 the table is a
 * list of cells.
 *
 * @param options Memory, sizes and block table.
 * @returns The view.
 * @throws {ChunkKvError} `invalid_argument` if sizes and memory do not fit; what lies outside the
 * memory is found at use.
 *
 * @example Three tokens in blocks 1 and 0 of two
 * ```ts
 * import { pagedKv } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * const keys = pagedKv({
 *   data: new Float32Array(2 * 2 * 64),
 *   numKvHeads: 1,
 *   kvLen: 3,
 *   headDim: 64,
 *   blockSize: 2,
 *   numBlocks: 2,
 *   blockTable: Int32Array.of(1, 0),
 * });
 * assertEquals(keys.strideBlock, 2 * 64 * 4);
 * ```
 */
export function pagedKv(options: PagedKvOptions): KvView {
  const { blockSize, numBlocks, blockTable, layout = "nhd", numKvHeads } = options;
  const common = base(options);
  check(
    Number.isInteger(blockSize) && blockSize >= 1,
    "blockSize to be an integer of at least 1",
    blockSize,
  );
  check(layout === "nhd" || layout === "hnd", "layout to be nhd or hnd", layout);
  const entries = Math.floor(blockTable.byteLength / Int32Array.BYTES_PER_ELEMENT);
  const { maxBlocks = common.batch > 0 ? Math.floor(entries / common.batch) : 0 } = options;
  const row = rowBytes(common.dtype, common.headDim);
  return {
    ...common,
    strideBatch: 0,
    strideHead: layout === "nhd" ? row : row * blockSize,
    strideToken: layout === "nhd" ? row * numKvHeads : row,
    strideBlock: options.strideBlock ?? row * numKvHeads * blockSize,
    blockSize,
    blockTable,
    maxBlocks,
    numBlocks,
  };
}

function base(options: DataOptions & KvShape) {
  const { data, batch = 1, numKvHeads, headDim, kvLen, kvLens } = options;
  const device = deviceOf(options);
  const dtype = dtypeOf(options);
  rowBytes(dtype, headDim);
  check(Number.isInteger(kvLen) && kvLen >= 0, "kvLen to be an integer of at least 0", kvLen);
  return { data, dtype, device, batch, numKvHeads, headDim, kvLen, kvLens };
}
