/**
 * Random choices of what a compaction keeps.
 *
 * @module
 */
import {
  chunkKv,
  type Compressor,
  contiguousKv,
  full,
  Kept,
  type Method,
  queryView,
  rowBytes,
  snapKv,
  streamingLlm,
} from "chunkkv";
import { queriesThere } from "./device.ts";
import type { DenseSequence, RowShape } from "./model.ts";

/** A method, and what it must keep: what it keeps of a dense copy of the keys. */
export function randomSelection(
  dense: DenseSequence,
  { numLayers, numKvHeads, headDim, dtype }: RowShape,
  next: () => number,
  compressor: Compressor,
) {
  const int = (least: number, most: number) => least + Math.floor(next() * (most - least + 1));
  const window = int(1, 4);
  const methods: Method[] = [
    chunkKv({ window, chunkSize: int(1, 4), reuse: int(1, 3) }),
    snapKv({ window }),
    streamingLlm(),
    full(),
  ];
  const method = methods[int(0, methods.length - 1)]!;
  const kvLen = dense.length, numQHeads = 2 * numKvHeads;
  const queries = Array.from({ length: numLayers }, () => {
    const length = numQHeads * window * headDim;
    const data = Float32Array.from({ length }, () => 4 * next() - 2);
    return queryView({ data, numQHeads, window, headDim });
  });
  const budget = int(1, kvLen);
  const reuse = method.name === "chunkkv" ? method.reuse : 1;
  const expected = queries.map((_, layer) => {
    const leader = layer - layer % reuse;
    const rows = dense.rows.keys[leader]!.flat();
    const data = new Uint8Array(rows.length * rowBytes(dtype, headDim));
    rows.forEach((row, i) => data.set(row, i * row.length));
    const keys = contiguousKv({ data, dtype, numKvHeads, kvLen, headDim });
    return compressor.select({ queries: queries[leader], keys, method, budget }).indices;
  });
  return { method, budget, queries: queries.map(queriesThere), expected };
}

/** Any rows, equally many in every layer; now and then all sets begin with the same ones. */
export function randomKept(
  dense: DenseSequence,
  { numLayers, numKvHeads }: RowShape,
  next: () => number,
): Kept[] {
  const all = Array.from({ length: dense.length }, (_, t) => t);
  const length = Math.floor(next() * (dense.length + 1));
  const lead = next() < 0.3 ? Math.floor(next() * (length + 1)) : 0;
  const heads = next() < 0.3 ? numKvHeads : 1;
  const set = () => {
    const rest = all.slice(lead).map((t) => [next(), t] as const).sort(([a], [b]) => a - b);
    const chosen = rest.slice(0, length - lead).map(([, t]) => t).sort((a, b) => a - b);
    return [...all.slice(0, lead), ...chosen];
  };
  return Array.from(
    { length: numLayers },
    () => Kept.from([Array.from({ length: heads }, set)]),
  );
}
