/**
 * Memory that the caller owns.
 *
 * @module
 */
import { type KvData, rowBytes } from "chunkkv";
import type { LayerMemory, PageLayout } from "chunkkv/paged";
import { memoryOf } from "./device.ts";
import type { RowShape } from "./model.ts";

/** Sizes of pages. */
export interface PageShape extends RowShape {
  blockSize: number;
  numBlocks: number;
  layout: PageLayout;
  /** Typed arrays, or a GPU's buffers; or addresses. */
  memory: "own" | "arrays" | "addresses";
}

/** Memory for all layers, with a gap after each block or without; `held` keeps it alive. */
export function callersMemory(
  { numLayers, numKvHeads, headDim, dtype, blockSize, numBlocks, layout, memory }: PageShape,
  next: () => number,
  held: KvData[],
): LayerMemory[] {
  const parts = layout === "fused" ? 2 : 1;
  const strideBlock = numKvHeads * blockSize * rowBytes(dtype, headDim) * parts +
    (next() < 0.5 ? 32 : 0);
  const make = () => {
    const byteLength = numBlocks * strideBlock + 4;
    const data = memoryOf(byteLength + 4);
    held.push(data);
    if (!(data instanceof Uint8Array)) {
      if (memory === "arrays") return data;
      return { pointer: Deno.UnsafePointer.offset(data.pointer, 4)!, byteLength };
    }
    const array = data.subarray(4);
    if (memory === "arrays") return array;
    return { pointer: Deno.UnsafePointer.of(array)!, byteLength };
  };
  return Array.from({ length: numLayers }, () => ({
    keys: make(),
    values: layout === "fused" ? undefined : make(),
    strideBlock,
  }));
}
