/**
 * Descriptions of queries where they lie: nothing is copied.
 *
 * @module
 */
import { type DataOptions, deviceOf, dtypeOf, type KvData, rowBytes } from "./data.ts";
import type { DeviceBuffer } from "./device_buffer.ts";
import type { Device, Dtype } from "./enums.ts";

/** The queries of the observation window of one layer; strides in bytes. */
export interface QueryView {
  /** The memory. */
  readonly data: KvData;
  /** Element type: `f32`, `f16` or `bf16`. */
  readonly dtype: Dtype;
  /** Where the data lies. */
  readonly device: Device;
  /** Sequences. */
  readonly batch: number;
  /** Query heads; a multiple of the keys' `numKvHeads`. */
  readonly numQHeads: number;
  /** Rows: the last `window` positions, oldest first. */
  readonly window: number;
  /** Elements of a row. */
  readonly headDim: number;
  /** Bytes from one sequence to the next. */
  readonly strideBatch: number;
  /** Bytes from one head to the next. */
  readonly strideHead: number;
  /** Bytes from one window row to the next. */
  readonly strideRow: number;
  /** Log-sum-exp of each row's logits over all keys it sees, `[batch, numQHeads, window]`. */
  readonly logSumExp?: Float32Array<ArrayBuffer> | DeviceBuffer | undefined;
}

/** What {@linkcode queryView} takes. */
export interface QueryViewOptions extends DataOptions {
  /** Sequences. @default {1} */
  batch?: number | undefined;
  /** Query heads; a multiple of the keys' `numKvHeads`. */
  numQHeads: number;
  /** Rows: the last `window` positions, oldest first. A shorter sequence uses its last rows. */
  window: number;
  /** Elements of a row. */
  headDim: number;
  /** Bytes from one window row to the next. @default {the bytes of a row} */
  strideRow?: number | undefined;
  /** Bytes from one head to the next. @default {window * strideRow} */
  strideHead?: number | undefined;
  /** Bytes from one sequence to the next. @default {numQHeads * strideHead} */
  strideBatch?: number | undefined;
  /**
   * Log-sum-exp of each row's logits over all keys it sees, `[batch, numQHeads, window]`, where the
   * engine has it: then one pass over the keys is enough.
   */
  logSumExp?: Float32Array<ArrayBuffer> | DeviceBuffer | undefined;
}

/**
 * The queries of the observation window, RoPE applied: `[batch, numQHeads, window, headDim]`
 * unless strides say otherwise.
 *
 * @param options Memory, sizes and strides.
 * @returns The view.
 * @throws {ChunkKvError} `invalid_argument` if sizes and memory do not fit.
 *
 * @example
 * ```ts
 * import { queryView } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * const queries = queryView({
 *   data: new Float32Array(8 * 32 * 64),
 *   numQHeads: 8,
 *   window: 32,
 *   headDim: 64,
 * });
 * assertEquals(queries.strideHead, 32 * 64 * 4);
 * ```
 */
export function queryView(options: QueryViewOptions): QueryView {
  const { data, batch = 1, numQHeads, window, headDim, logSumExp } = options;
  const device = deviceOf(options);
  const dtype = dtypeOf(options);
  const { strideRow = rowBytes(dtype, headDim) } = options;
  const { strideHead = window * strideRow } = options;
  const { strideBatch = numQHeads * strideHead } = options;
  return {
    data,
    dtype,
    device,
    batch,
    numQHeads,
    window,
    headDim,
    strideBatch,
    strideHead,
    strideRow,
    logSumExp,
  };
}
