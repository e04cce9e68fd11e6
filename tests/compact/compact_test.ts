/**
 * Rows moved, against the oracle: every byte of the memory, moved or not.
 *
 * @module
 */
import { chunkKv, Compressor, Kept, rowBytes, snapKv } from "chunkkv";
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  anyAttention,
  anyDtype,
  anyKvLens,
  anyLayout,
  headDims,
  ISAS_HERE,
  makeAttention,
} from "../arbitraries.ts";
import { assertSameBytes } from "../bytes.ts";
import { type Cache, type Layout, layOut, makeCache, type Shape } from "../layouts.ts";
import { compactRows } from "../oracle.ts";
import { random } from "../random.ts";

const RUNS = 150;

const anyCompaction = anyDtype.chain((dtype) =>
  fc.record({
    dtype: fc.constant(dtype),
    headDim: fc.constantFrom(...headDims(dtype)),
    from: anyLayout,
    to: fc.option(anyLayout, { nil: undefined }),
    numKvHeads: fc.integer({ min: 1, max: 4 }),
    kvLens: anyKvLens,
    perHead: fc.boolean(),
    keep: fc.constantFrom(0, 0.1, 0.5, 0.9, 1),
    isa: fc.constantFrom(...ISAS_HERE),
    threads: fc.integer({ min: 1, max: 3 }),
    seed: fc.integer(),
  })
);

/** Rows of random bytes: any bit pattern must survive the move. */
function randomBytes(layout: Layout, shape: Shape, next: () => number): Cache {
  const row = rowBytes(shape.dtype, shape.headDim);
  return layOut(layout, shape, () => Uint8Array.from({ length: row }, () => next() * 256));
}

/** Each token with probability `keep`; the heads of a sequence keep equally many. */
function randomKept(shape: Shape, perHead: boolean, keep: number, next: () => number): Kept {
  return Kept.from(shape.kvLens.map((tokens) => {
    const all = Array.from({ length: tokens }, (_, t) => t);
    const length = all.filter(() => next() < keep).length;
    return Array.from({ length: perHead ? shape.numKvHeads : 1 }, () => {
      const shuffled = all.map((t) => [next(), t] as const).sort(([a], [b]) => a - b);
      return shuffled.slice(0, length).map(([, t]) => t).sort((a, b) => a - b);
    });
  }));
}

/** What the memory of `to` must be afterwards. */
function expectedBytes(from: Cache, to: Cache, shape: Shape, kept: Kept): Uint8Array {
  const bytes = to.bytes.slice();
  compactRows(
    from.bytes,
    from.offset,
    bytes,
    to.offset,
    rowBytes(shape.dtype, shape.headDim),
    shape.numKvHeads,
    (b, head) => kept.at(b, head),
    shape.kvLens.length,
  );
  return bytes;
}

Deno.test("compact() moves kept rows bit for bit, and touches nothing else", () => {
  fc.assert(
    fc.property(anyCompaction, (one) => {
      const next = random(one.seed);
      const keys = randomBytes(one.from, one, next);
      const values = randomBytes(one.from, one, next);
      const kept = randomKept(one, one.perHead, one.keep, next);
      const keysTo = one.to && makeCache(one.to, one);
      const valuesTo = one.to && makeCache(one.to, one);
      const expectedKeys = expectedBytes(keys, keysTo ?? keys, one, kept);
      const expectedValues = expectedBytes(values, valuesTo ?? values, one, kept);
      const [sourceKeys, sourceValues] = [keys.bytes.slice(), values.bytes.slice()];

      using compressor = new Compressor({ isa: one.isa, threads: one.threads });
      compressor.compact({
        keys: keys.view,
        values: values.view,
        kept,
        to: one.to && { keys: keysTo?.view, values: valuesTo?.view },
      });
      assertSameBytes((keysTo ?? keys).bytes, expectedKeys, "keys");
      assertSameBytes((valuesTo ?? values).bytes, expectedValues, "values");
      if (!one.to) return;
      assertSameBytes(keys.bytes, sourceKeys, "source of keys");
      assertSameBytes(values.bytes, sourceValues, "source of values");
    }),
    { numRuns: RUNS },
  );
});

Deno.test("compact() of keys or of values alone leaves the other alone", () => {
  const shape: Shape = { dtype: "f16", numKvHeads: 2, headDim: 64, kvLens: [9] };
  const next = random(3);
  const kept = Kept.from([[[0, 4, 8]]]);
  for (const which of ["keys", "values"] as const) {
    const cache = randomBytes("nhd", shape, next);
    const expected = expectedBytes(cache, cache, shape, kept);
    using compressor = new Compressor({ threads: 1 });
    compressor.compact({ [which]: cache.view, kept });
    assertSameBytes(cache.bytes, expected, which);
  }
});

Deno.test("compact() of large rows is the same with any number of threads", () => {
  const shape: Shape = { dtype: "f32", numKvHeads: 8, headDim: 128, kvLens: [160, 257] };
  for (const layout of ["contiguous", "token_major", "hnd", "cells"] as const) {
    for (const perHead of [false, true]) {
      for (const threads of [1, 2, 3]) {
        const next = random(11);
        const cache = layOut(
          layout,
          shape,
          (b, h, t) =>
            new Uint8Array(
              Float32Array.from({ length: 128 }, (_, j) => b + h * 3 + t * 31 + j).buffer,
            ),
        );
        const kept = randomKept(shape, perHead, 0.3, next);
        const expected = expectedBytes(cache, cache, shape, kept);
        using compressor = new Compressor({ threads });
        compressor.compact({ keys: cache.view, kept });
        assertSameBytes(
          cache.bytes,
          expected,
          `${layout}, per head ${perHead}, ${threads} threads`,
        );
      }
    }
  }
});

Deno.test("compress() moves what select() of each group's first layer chooses", () => {
  fc.assert(
    fc.property(
      anyAttention,
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 3 }),
      fc.boolean(),
      (one, budget, numLayers, reuse, perHead) => {
        const layers = Array.from({ length: numLayers }, (_, layer) => {
          const attention = makeAttention({ ...one, seed: one.seed + layer });
          const values = randomBytes(one.layout, attention.shape, random(layer));
          return { ...attention, values };
        });
        const { window, scale, logitSoftcap } = one;
        const method = perHead ? snapKv({ window }) : chunkKv({ window, chunkSize: 5, reuse });
        const group = perHead ? 1 : reuse;
        using compressor = new Compressor({ threads: one.threads });
        const chosen = layers.map((_, layer) => {
          const { queries, keys } = layers[layer - layer % group]!;
          return compressor.select({
            queries,
            keys: keys.view,
            method,
            budget,
            scale,
            logitSoftcap,
          });
        });
        const expected = layers.map(({ keys, values, shape }, layer) =>
          [keys, values].map((cache) => expectedBytes(cache, cache, shape, chosen[layer]!))
        );
        const kept = compressor.compress({
          layers: layers.map(({ queries, keys, values }, layer) => ({
            queries: layer % group === 0 ? queries : undefined,
            keys: keys.view,
            values: values.view,
          })),
          method,
          budget,
          scale,
          logitSoftcap,
        });
        assertEquals(kept.map(({ indices }) => indices), chosen.map(({ indices }) => indices));
        layers.forEach(({ keys, values }, layer) => {
          assertSameBytes(keys.bytes, expected[layer]![0]!, `keys of layer ${layer}`);
          assertSameBytes(values.bytes, expected[layer]![1]!, `values of layer ${layer}`);
        });
      },
    ),
    { numRuns: 30 },
  );
});
