/**
 * One layer's keys, values and queries, as often as it takes to be larger than the caches.
 *
 * @module
 */
import {
  contiguousKv,
  type DeviceBuffer,
  type Dtype,
  type KvView,
  pagedKv,
  type QueryView,
  queryView,
  rowBytes,
} from "chunkkv";
import { seededRandom } from "../random.ts";

/** Attention shapes of real models, one layer. */
export const SHAPES = {
  "llama-3-8b": { heads: 32, kvHeads: 8, headDim: 128 },
  "llama-3-70b-tp8": { heads: 8, kvHeads: 1, headDim: 128 },
  "qwen2.5-7b": { heads: 28, kvHeads: 4, headDim: 128 },
  "gemma-3": { heads: 4, kvHeads: 1, headDim: 256 },
  "smollm2": { heads: 9, kvHeads: 3, headDim: 64 },
} as const;

/** How rows lie: `[head][token]`; llama.cpp's cells, heads side by side; vLLM's NHD pages of 16. */
export const LAYOUTS = ["contiguous", "cells", "paged"] as const;

/** What is measured. */
export interface Case {
  /** What the shape is called. */
  shape: string;
  heads: number;
  kvHeads: number;
  headDim: number;
  /** Tokens of each sequence. */
  n: number;
  batch: number;
  dtype: Dtype;
  layout: typeof LAYOUTS[number];
  /** Fraction kept. */
  keep: number;
  window: number;
  chunkSize: number;
}

/** Keys and values of layers that take turns. */
export interface Workload {
  queries: QueryView;
  layers: { keys: KvView; values: KvView }[];
}

/** Bytes of the keys (or the values) of one layer. */
export function cacheBytes({ dtype, headDim, kvHeads, n, batch }: Case): number {
  return rowBytes(dtype, headDim) * kvHeads * n * batch;
}

/**
 * Random memory for a case.
 *
 * @param what The case.
 * @param turnBytes The bytes that compaction moves before a layer's turn comes again, at least;
 * larger than the caches, so that rows come from memory.
 */
export function makeWorkload(what: Case, turnBytes: number): Workload {
  const { dtype, headDim } = what;
  const bytes = cacheBytes(what);
  const count = layerCount(what, turnBytes);
  const memory = randomRows(2 * count * bytes, dtype, headDim);
  const cache = viewsOf(what);
  const layers = Array.from({ length: count }, (_, layer) => ({
    keys: cache(memory.subarray(2 * layer * bytes, (2 * layer + 1) * bytes)),
    values: cache(memory.subarray((2 * layer + 1) * bytes, (2 * layer + 2) * bytes)),
  }));
  const queries = randomQueries(what);
  return { queries, layers };
}

/** Layers that move at least `turnBytes` before the first one's turn comes again. */
export function layerCount(what: Case, turnBytes: number): number {
  return Math.ceil(turnBytes / (2 * 2 * cacheBytes(what) * what.keep)) + 1;
}

/**
 * How memory becomes a view in the layout of a case.
 *
 * @param what The case.
 * @param place Where a table of blocks goes: where the memory is.
 */
export function viewsOf(
  { layout, dtype, batch, kvHeads, n, headDim }: Case,
  place: (table: Int32Array<ArrayBuffer>) => Int32Array<ArrayBuffer> | DeviceBuffer = (here) =>
    here,
): (data: Uint8Array<ArrayBuffer> | DeviceBuffer) => KvView {
  const common = { dtype, batch, numKvHeads: kvHeads, kvLen: n, headDim };
  if (layout === "contiguous") return (data) => contiguousKv({ data, ...common });
  const blockSize = layout === "cells" ? 1 : 16;
  const perSequence = Math.floor(n / blockSize);
  const table = Int32Array.from({ length: perSequence * batch }, (_, i) => i);
  if (layout === "paged") shuffle(table);
  const blocks = { blockSize, numBlocks: table.length, blockTable: place(table) };
  return (data) => pagedKv({ data, ...common, ...blocks });
}

/** As engines have them: of the keys' type where that is bf16, f32 else. */
function randomQueries({ dtype, batch, heads, window, headDim }: Case): QueryView {
  const data = randomNumbers(batch * heads * window * headDim);
  const sizes = { batch, numQHeads: heads, window, headDim };
  if (dtype !== "bf16") return queryView({ data, ...sizes });
  return queryView({ data: toBf16(data), dtype, ...sizes });
}

/** Numbers from -1 to 1. */
export function randomNumbers(count: number, seed = 1): Float32Array<ArrayBuffer> {
  const next = seededRandom(seed);
  return Float32Array.from({ length: count }, () => next() * 2 - 1);
}

/** bf16 is the upper half of f32. */
export function toBf16(data: Float32Array<ArrayBuffer>): Uint16Array<ArrayBuffer> {
  return Uint16Array.from(new Uint32Array(data.buffer), (word) => word >>> 16);
}

/** Rows of small finite numbers: some MiB of them, again and again. */
export function randomRows(bytes: number, dtype: Dtype, headDim: number): Uint8Array<ArrayBuffer> {
  // Engines align their caches to a cache line; JavaScript does not.
  const room = new Uint8Array(bytes + 63);
  const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(room));
  const start = Number(-address & 63n);
  const memory = room.subarray(start, start + bytes);
  const row = rowBytes(dtype, headDim);
  const pattern = memory.subarray(0, Math.min(bytes, Math.ceil(4 * 2 ** 20 / row) * row));
  const words = new Uint32Array(Math.ceil(pattern.length / 4));
  const next = seededRandom(2);
  if (dtype === "f32") {
    const floats = new Float32Array(words.buffer);
    for (let i = 0; i < floats.length; i++) floats[i] = next() * 2 - 1;
  } else {
    for (let i = 0; i < words.length; i++) words[i] = next() * 2 ** 32;
  }
  pattern.set(new Uint8Array(words.buffer, 0, pattern.length));
  TAME[dtype](pattern);
  for (let filled = pattern.length; filled < bytes; filled *= 2) {
    memory.copyWithin(filled, 0, Math.min(filled, bytes - filled));
  }
  return memory;
}

/** Random bits to numbers of moderate size. */
const TAME: Record<Dtype, (bytes: Uint8Array) => void> = {
  f32: () => {},
  f16: (bytes) => everySecond(bytes, 0x38),
  bf16: (bytes) => everySecond(bytes, 0x3c),
  f8_e4m3: (bytes) => {
    for (let i = 0; i < bytes.length; i++) bytes[i]! &= 0xbf;
  },
  q8_0: (bytes) => everyScale(bytes, 34),
  q4_0: (bytes) => everyScale(bytes, 18),
};

function everySecond(bytes: Uint8Array, exponent: number): void {
  for (let i = 1; i < bytes.length; i += 2) bytes[i] = (bytes[i]! & 0x83) | exponent;
}

function everyScale(bytes: Uint8Array, block: number): void {
  for (let i = 0; i < bytes.length; i += block) {
    bytes[i] = 0;
    bytes[i + 1] = 0x20;
  }
}

function shuffle(table: Int32Array): void {
  const next = seededRandom(3);
  for (let i = table.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [table[i], table[j]] = [table[j]!, table[i]!];
  }
}
