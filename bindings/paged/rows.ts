/**
 * Rows written to slots, for engines that compute in JavaScript.
 *
 * @module
 */
import { rowBytes } from "../../ffi/data.ts";
import type { KvView } from "../../ffi/kv_view.ts";
import { check } from "../../ffi/status.ts";
import { checkIntegers } from "./integers.ts";
import type { LayerPages } from "./pages.ts";

/** New rows of one layer, as vLLM's `reshape_and_cache` takes them. */
export interface WriteOptions {
  /** Slot of each token, from `append`; -1 leaves it out. */
  slotMapping: ArrayLike<number>;
  /** Keys, `[tokens, numKvHeads, headDim]` in the cache's element type, RoPE applied. */
  keys: ArrayBufferView;
  /** Values, `[tokens, numKvHeads, headDim]` in the cache's element type. */
  values: ArrayBufferView;
}

/**
 * Writes rows of one layer.
 *
 * @param pages The layer.
 * @param options Rows and slots.
 * @throws {ChunkKvError} `invalid_argument` if a slot is not in the pool or rows are missing; nothing
 * is written then.
 */
export function writeRows(pages: LayerPages, options: WriteOptions): void {
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
