/**
 * The same rows of keys or values in every way that engines lay them out.
 *
 * @module
 */
import { contiguousKv, type Dtype, type KvView, pagedKv, rowBytes, stridedKv } from "chunkkv";
import type { RowOffset } from "./oracle.ts";

/**
 * - `contiguous`: `[batch, head, token]`
 * - `token_major`: `[batch, token, head]`, as llama.cpp
 * - `padded`: contiguous with gaps between tokens, heads and sequences
 * - `nhd`, `hnd`: blocks of 4 tokens in shuffled order, as vLLM
 * - `cells`: blocks of 1 token in shuffled order, as llama.cpp's unified cache
 */
export const LAYOUTS = ["contiguous", "token_major", "padded", "nhd", "hnd", "cells"] as const;

/** One of {@linkcode LAYOUTS}. */
export type Layout = typeof LAYOUTS[number];

/** Sizes of what is laid out. */
export interface Shape {
  dtype: Dtype;
  numKvHeads: number;
  headDim: number;
  /** Tokens of each sequence. */
  kvLens: readonly number[];
}

/** Memory, its description, and where each row of it lies. */
export interface Cache {
  bytes: Uint8Array<ArrayBuffer>;
  view: KvView;
  offset: RowOffset;
}

/**
 * Memory that no row occupies holds this byte: NaN in every float type, so that a kernel that reads
 * outside its rows is found out.
 */
const FILLER = 0xff;

/** Fixed permutation of `[0, count)`: 7919 is prime and larger than any count here. */
function shuffled(count: number): number[] {
  return Array.from({ length: count }, (_, i) => (i * 7919 + 3) % count);
}

/** Memory for rows of a shape, all filler. */
export function makeCache(layout: Layout, shape: Shape): Cache {
  const { dtype, numKvHeads, headDim, kvLens } = shape;
  const batch = kvLens.length;
  const kvLen = Math.max(0, ...kvLens);
  const row = rowBytes(dtype, headDim);
  const sizes = {
    dtype,
    batch,
    numKvHeads,
    headDim,
    kvLen,
    kvLens: new Set(kvLens).size > 1 ? Int32Array.from(kvLens) : undefined,
  };
  if (layout === "nhd" || layout === "hnd" || layout === "cells") {
    const blockSize = layout === "cells" ? 1 : 4;
    const maxBlocks = Math.ceil(kvLen / blockSize) + 1;
    const numBlocks = batch * maxBlocks + 1;
    const strideBlock = row * numKvHeads * blockSize;
    const bytes = new Uint8Array(numBlocks * strideBlock).fill(FILLER);
    const view = pagedKv({
      ...sizes,
      data: bytes,
      blockSize,
      numBlocks,
      maxBlocks,
      blockTable: Int32Array.from(shuffled(numBlocks).slice(0, batch * maxBlocks)),
      layout: layout === "hnd" ? "hnd" : "nhd",
    });
    const offset: RowOffset = (b, head, token) =>
      (view.blockTable as Int32Array)[b * maxBlocks + Math.floor(token / blockSize)]! *
        strideBlock +
      (token % blockSize) * view.strideToken + head * view.strideHead;
    return { bytes, view, offset };
  }
  const gap = layout === "padded" ? 8 : 0;
  const strideToken = layout === "token_major" ? row * numKvHeads : row + gap;
  const strideHead = layout === "token_major" ? row : strideToken * kvLen + gap;
  const strideBatch = (layout === "token_major" ? strideToken * kvLen : strideHead * numKvHeads) +
    gap;
  const bytes = new Uint8Array(batch * strideBatch + gap).fill(FILLER);
  const view = layout === "contiguous"
    ? contiguousKv({ ...sizes, data: bytes })
    : stridedKv({ ...sizes, data: bytes, strideToken, strideHead, strideBatch });
  const offset: RowOffset = (b, head, token) =>
    b * strideBatch + head * strideHead + token * strideToken;
  return { bytes, view, offset };
}

/** Memory with every row of a shape written. */
export function layOut(
  layout: Layout,
  shape: Shape,
  row: (sequence: number, head: number, token: number) => Uint8Array,
): Cache {
  const cache = makeCache(layout, shape);
  shape.kvLens.forEach((tokens, b) => {
    for (let head = 0; head < shape.numKvHeads; head++) {
      for (let token = 0; token < tokens; token++) {
        cache.bytes.set(row(b, head, token), cache.offset(b, head, token));
      }
    }
  });
  return cache;
}

/** Gathers rows `[batch, head, i]` of a cache: which tokens, `tokens` says. */
export function gatherRows(
  cache: Cache,
  shape: Shape,
  tokens: (sequence: number, head: number) => ArrayLike<number>,
): Uint8Array {
  const row = rowBytes(shape.dtype, shape.headDim);
  const pieces = shape.kvLens.flatMap((_, b) =>
    Array.from({ length: shape.numKvHeads }, (_, head) => head).flatMap((head) =>
      Array.from(tokens(b, head), (token) => {
        const from = cache.offset(b, head, token);
        return cache.bytes.subarray(from, from + row);
      })
    )
  );
  const out = new Uint8Array(pieces.length * row);
  pieces.forEach((piece, i) => out.set(piece, i * row));
  return out;
}
