/**
 * Memory that the caller owns.
 *
 * @module
 */
import { rowBytes } from "chunkkv";
import type { LayerMemory, PageLayout } from "chunkkv/paged";
import type { RowShape } from "./model.ts";

/** Sizes of pages. */
export interface PageShape extends RowShape {
  blockSize: number;
  numBlocks: number;
  layout: PageLayout;
  /** Typed arrays or addresses. */
  memory: "own" | "arrays" | "addresses";
}

/** Memory for all layers, with a gap after each block or without; `held` keeps it alive. */
export function callersMemory(
  { numLayers, numKvHeads, headDim, dtype, blockSize, numBlocks, layout, memory }: PageShape,
  next: () => number,
  held: Uint8Array[],
): LayerMemory[] {
  const parts = layout === "fused" ? 2 : 1;
  const strideBlock = numKvHeads * blockSize * rowBytes(dtype, headDim) * parts +
    (next() < 0.5 ? 32 : 0);
  const make = () => {
    const data = new Uint8Array(numBlocks * strideBlock + 8).subarray(4);
    held.push(data);
    if (memory === "arrays") return data;
    return { pointer: Deno.UnsafePointer.of(data)!, byteLength: data.byteLength };
  };
  return Array.from({ length: numLayers }, () => ({
    keys: make(),
    values: layout === "fused" ? undefined : make(),
    strideBlock,
  }));
}
