/**
 * Descriptions to C structs, and the memory behind them kept alive while C has it.
 *
 * @module
 */
import { DeviceBuffer } from "./device_buffer.ts";
import { type Device, DEVICES, DTYPES } from "./enums.ts";
import type { KvData } from "./data.ts";
import type { KvView } from "./kv_view.ts";
import type { AnyKept, AnyScores } from "./place.ts";
import type { QueryView } from "./query_view.ts";
import { check } from "./status.ts";
import { KEPT, KV_VIEW, packStruct, packStructs, QUERY_VIEW, SCORES } from "./structs.ts";

/** A packed struct. */
export type Packed = Uint8Array<ArrayBuffer>;

/** What a native call reads or writes, held until the call has returned. */
export class Held {
  readonly #deviceIndex: number | undefined;
  #items: ArrayBufferView[] = [];
  #buffers: DeviceBuffer[] = [];
  #owned: Disposable[] = [];

  /** @param deviceIndex The GPU that the call is for; none: the CPU's. */
  constructor(deviceIndex?: number) {
    this.#deviceIndex = deviceIndex;
  }

  /**
   * Holds memory and tells its address.
   *
   * @param array The memory; `undefined` and empty arrays have address 0.
   * @returns The address.
   * @throws {ChunkKvError} `invalid_argument` if the memory may shrink under the call; `disposed`.
   */
  address(array: ArrayBufferView<ArrayBuffer> | DeviceBuffer | undefined): bigint {
    if (array instanceof DeviceBuffer) {
      const index = this.#deviceIndex ?? array.deviceIndex;
      check(array.deviceIndex === index, `memory of device ${index}`, array.deviceIndex);
      const address = array.retain();
      this.#buffers.push(array);
      return address;
    }
    if (array === undefined || array.byteLength === 0) return 0n;
    check(!array.buffer.resizable, "memory that does not shrink", "a resizable ArrayBuffer");
    this.#items.push(array);
    return Deno.UnsafePointer.value(Deno.UnsafePointer.of(array));
  }

  /** Disposes something with the release, if it can be: nobody else has it, or not yet. */
  own<T extends object>(temporary: T): T {
    if (isDisposable(temporary)) this.#owned.push(temporary);
    return temporary;
  }

  /** The caller has it from now on. */
  disown<T extends object>(result: T): T {
    this.#owned = this.#owned.filter((one) => one !== result);
    return result;
  }

  /** Lets go of everything, and throws the first that fails only then. */
  release(): void {
    const errors: unknown[] = [];
    const attempt = (action: () => void) => {
      try {
        action();
      } catch (error) {
        errors.push(error);
      }
    };
    this.#items.length = 0;
    for (const buffer of this.#buffers.splice(0)) attempt(() => buffer.release());
    for (const temporary of this.#owned.splice(0)) attempt(() => temporary[Symbol.dispose]());
    if (errors.length > 0) throw errors[0];
  }
}

function isDisposable(value: object): value is Disposable {
  return Symbol.dispose in value;
}

/**
 * Packs a `ckv_kv_view`.
 *
 * @param view The description.
 * @param held Keeps its memory alive.
 * @returns The packed struct.
 * @throws {ChunkKvError} `invalid_argument` if an array is shorter than the sizes say.
 */
export function packKv(view: KvView, held: Held): Packed {
  checkLens(view, view.device);
  if (view.blockSize > 0) {
    check(view.blockTable !== undefined, "a blockTable for blocks", "none");
    checkTable("blockTable", view.blockTable, view.batch * view.maxBlocks, view.device);
  }
  return packStruct(KV_VIEW, {
    ...memory(view.data, held),
    dtype: DTYPES[view.dtype],
    device: DEVICES[view.device],
    batch: view.batch,
    num_kv_heads: view.numKvHeads,
    head_dim: view.headDim,
    kv_len: view.kvLen,
    block_size: view.blockSize,
    stride_batch: view.strideBatch,
    stride_head: view.strideHead,
    stride_token: view.strideToken,
    stride_block: view.strideBlock,
    kv_lens: held.address(view.kvLens),
    block_table: held.address(view.blockTable),
    max_blocks: view.maxBlocks,
    num_blocks: view.numBlocks,
  });
}

/**
 * Packs a `ckv_query_view`.
 *
 * @param view The description.
 * @param held Keeps its memory alive.
 * @returns The packed struct.
 * @throws {ChunkKvError} `invalid_argument` if an array is shorter than the sizes say.
 */
export function packQueries(view: QueryView, held: Held): Packed {
  if (view.logSumExp) {
    const rows = view.batch * view.numQHeads * view.window;
    checkTable("logSumExp", view.logSumExp, rows, view.device);
  }
  return packStruct(QUERY_VIEW, {
    ...memory(view.data, held),
    dtype: DTYPES[view.dtype],
    device: DEVICES[view.device],
    batch: view.batch,
    num_q_heads: view.numQHeads,
    window: view.window,
    head_dim: view.headDim,
    stride_batch: view.strideBatch,
    stride_head: view.strideHead,
    stride_row: view.strideRow,
    log_sum_exp: held.address(view.logSumExp),
  });
}

/**
 * Packs a `ckv_scores`.
 *
 * @param scores Token scores.
 * @param held Keeps their memory alive.
 * @returns The packed struct.
 * @throws {ChunkKvError} `invalid_argument` if an array is shorter than the sizes say.
 */
export function packScores(scores: AnyScores, held: Held): Packed {
  checkLens(scores, scores.data instanceof DeviceBuffer ? "cuda" : "cpu");
  return packStruct(SCORES, {
    batch: scores.batch,
    num_heads: scores.numHeads,
    kv_len: scores.kvLen,
    kv_lens: held.address(scores.kvLens),
    data: held.address(scores.data),
    count: scores.data.byteLength / 4,
  });
}

/**
 * Packs an array of `ckv_kept`.
 *
 * @param kept Index sets, one per layer.
 * @param held Keeps their memory alive.
 * @returns The packed structs, one after the other.
 */
export function packKept(kept: readonly AnyKept[], held: Held): Packed {
  return packStructs(
    KEPT,
    kept.map((one) => ({
      batch: one.batch,
      num_heads: one.numHeads,
      capacity: one.capacity,
      indices: held.address(one.data),
      lens: held.address(one.lens),
    })),
  );
}

function memory(data: KvData, held: Held): { data: bigint; size_bytes: number } {
  const address = "pointer" in data && !(data instanceof DeviceBuffer)
    ? Deno.UnsafePointer.value(data.pointer)
    : held.address(data);
  return { data: address, size_bytes: data.byteLength };
}

type Table = Int32Array | Float32Array | DeviceBuffer;

function checkLens({ kvLens, batch }: { kvLens?: Table | undefined; batch: number }, on: Device) {
  if (kvLens) checkTable("kvLens", kvLens, batch, on);
}

// C cannot see how long these arrays are, nor where. Entries have 4 bytes.
function checkTable(name: string, table: Table, least: number, on: Device): void {
  const place = table instanceof DeviceBuffer ? "cuda" : "cpu";
  check(place === on, `${name} on ${on}, where the data is,`, place);
  const entries = Math.floor(table.byteLength / 4);
  check(entries >= least, `${name} to have at least ${least} entries`, entries);
}
