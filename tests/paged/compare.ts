/**
 * A paged cache and its model, side by side.
 *
 * @module
 */
import { rowBytes } from "chunkkv";
import type { PagedKvCache, PagedSequence } from "chunkkv/paged";
import { assertEquals } from "@std/assert";
import { decodeRow } from "../encode.ts";
import { bytesOf } from "./device.ts";
import { type DenseSequence, KINDS, pagedRow, type RowShape } from "./model.ts";

/** A sequence and its model. */
export interface Pair {
  paged: PagedSequence;
  dense: DenseSequence;
}

/** Fails unless every row of every sequence is that of the model, bit for bit. */
export function assertSameRows(cache: PagedKvCache, pairs: readonly Pair[], shape: RowShape): void {
  const batch = cache.batch(pairs.map(({ paged }) => paged));
  const size = rowBytes(shape.dtype, shape.headDim);
  for (let layer = 0; layer < shape.numLayers; layer++) {
    for (const kind of KINDS) {
      const view = batch[kind](layer);
      const bytes = bytesOf(view);
      pairs.forEach(({ dense }, b) =>
        dense.rows[kind][layer]!.forEach((rows, head) =>
          rows.forEach((row, token) => {
            if (equal(pagedRow(batch, view, bytes, [b, head, token], size), row)) return;
            throw new Error(`${kind} of layer ${layer}, sequence ${b}, head ${head}: row ${token}`);
          })
        )
      );
    }
  }
}

/** Fails unless attention over the pages is that over the model's rows. */
export function assertSameAttention(
  cache: PagedKvCache,
  { paged, dense }: Pair,
  { numLayers, numKvHeads, headDim, dtype }: RowShape,
  next: () => number,
): void {
  if (dense.length === 0) return;
  const batch = cache.batch([paged]);
  const size = rowBytes(dtype, headDim);
  const query = Array.from({ length: headDim }, () => next() - 0.5);
  for (let layer = 0; layer < numLayers; layer++) {
    for (let head = 0; head < numKvHeads; head++) {
      const inPages = KINDS.map((kind) => {
        const view = batch[kind](layer);
        const bytes = bytesOf(view);
        return Array.from(
          { length: batch.kvLens[0]! },
          (_, t) => decodeRow(dtype, pagedRow(batch, view, bytes, [0, head, t], size)),
        );
      });
      const inModel = KINDS.map((kind) =>
        dense.rows[kind][layer]![head]!.map((row) => decodeRow(dtype, row))
      );
      assertEquals(
        attend(query, inPages[0]!, inPages[1]!),
        attend(query, inModel[0]!, inModel[1]!),
      );
    }
  }
}

/** Attention of one query to rows, in float64. */
export function attend(
  query: readonly number[],
  keys: readonly number[][],
  values: readonly number[][],
): number[] {
  const logits = keys.map((key) =>
    key.reduce((total, value, j) => total + value * query[j]!, 0) / Math.sqrt(query.length)
  );
  const most = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - most));
  const total = weights.reduce((a, b) => a + b, 0);
  return query.map((_, j) =>
    values.reduce((out, value, t) => out + weights[t]! / total * value[j]!, 0)
  );
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return false;
  return a.length === b.length;
}
