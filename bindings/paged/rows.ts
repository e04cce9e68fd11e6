/**
 * Rows written to slots.
 *
 * @module
 */
import type { Compressor } from "../../ffi/compressor.ts";
import { rowBytes } from "../../ffi/data.ts";
import { DeviceBuffer } from "../../ffi/device_buffer.ts";
import type { Device } from "../../ffi/enums.ts";
import type { KvView } from "../../ffi/kv_view.ts";
import { check } from "../../ffi/status.ts";
import { writeDeviceRows } from "./device_rows.ts";
import { checkIntegers } from "./integers.ts";
import type { LayerPages } from "./pages.ts";
import type { PagePlace } from "./place.ts";

/** New rows of one layer, as vLLM's `reshape_and_cache` takes them. */
export interface WriteOptions {
  /** Slot of each token, from `append`; -1 leaves it out. */
  slotMapping: ArrayLike<number>;
  /**
   * Keys, `[tokens, numKvHeads, headDim]` in the cache's element type, RoPE applied; to pages of a GPU
   * in its memory or in this machine's.
   */
  keys: ArrayBufferView | DeviceBuffer;
  /** Values, `[tokens, numKvHeads, headDim]` in the cache's element type, likewise. */
  values: ArrayBufferView | DeviceBuffer;
}

/**
 * Writes rows of one layer.
 *
 * @param pages The layer.
 * @param options Rows and slots.
 * @param place Where the pages are.
 * @param compressor Who moves rows there.
 * @throws {ChunkKvError} `invalid_argument` if a slot is not in the pool or rows are missing; nothing
 * is written then.
 */
export function writeRows(
  pages: LayerPages,
  options: WriteOptions,
  place: PagePlace,
  compressor: Compressor<Device>,
): void {
  const { slotMapping, keys, values } = options;
  const { blockSize, numBlocks } = pages.keys;
  checkIntegers("a slot", slotMapping, -1, numBlocks * blockSize - 1);
  const sources = { keys, values };
  for (const which of ["keys", "values"] as const) {
    const { dtype, headDim, numKvHeads } = pages[which];
    const bytes = slotMapping.length * numKvHeads * rowBytes(dtype, headDim);
    check(
      sources[which].byteLength === bytes,
      `${bytes} bytes of ${which}`,
      sources[which].byteLength,
    );
  }
  if (place.device === "cuda") {
    writeDeviceRows(pages, slotMapping, sources, { place, compressor });
    return;
  }
  check(
    !(keys instanceof DeviceBuffer || values instanceof DeviceBuffer),
    "rows in arrays for pages on the CPU",
    "a DeviceBuffer",
  );
  writeInto(pages.keys, slotMapping, keys);
  writeInto(pages.values, slotMapping, values);
}

/**
 * Where a row lies.
 *
 * @param view Keys or values of a layer.
 * @param slot The slot of its token.
 * @param head Its kv head.
 * @returns Bytes from the beginning of the memory.
 *
 * @example
 * ```ts
 * import { PagedKvCache, rowOffset } from "chunkkv/paged";
 * import { assertEquals } from "@std/assert";
 *
 * using cache = new PagedKvCache({ numLayers: 1, numKvHeads: 2, headDim: 8, numBlocks: 4 });
 * assertEquals(rowOffset(cache.layer(0).keys, 17, 1), (17 * 2 + 1) * 8 * 2);
 * ```
 */
export function rowOffset(
  view: Pick<KvView, "blockSize" | "strideBlock" | "strideToken" | "strideHead">,
  slot: number,
  head: number,
): number {
  return Math.floor(slot / view.blockSize) * view.strideBlock +
    (slot % view.blockSize) * view.strideToken + head * view.strideHead;
}

function writeInto(view: KvView, slots: ArrayLike<number>, source: ArrayBufferView): void {
  const to = bytesOf(view);
  const from = new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  const row = rowBytes(view.dtype, view.headDim);
  const adjacent = view.strideHead === row; // then all heads of a token are one piece
  const pieces = adjacent ? 1 : view.numKvHeads;
  const bytes = row * view.numKvHeads / pieces;
  for (let i = 0; i < slots.length; i++) {
    if (slots[i]! < 0) continue;
    for (let piece = 0; piece < pieces; piece++) {
      const begin = (i * pieces + piece) * bytes;
      to.set(from.subarray(begin, begin + bytes), rowOffset(view, slots[i]!, piece));
    }
  }
}

function bytesOf({ data }: KvView): Uint8Array<ArrayBuffer> {
  if (!("pointer" in data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(data.pointer, data.byteLength));
}
