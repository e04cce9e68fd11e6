/**
 * Logits at the edge of what f32 holds, and numbers that are none.
 *
 * @module
 */
import {
  chunkKv,
  ChunkKvError,
  Compressor,
  type Dtype,
  Kept,
  type QueryView,
  queryView,
  Scores,
  snapKv,
} from "chunkkv";
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DTYPES } from "../../ffi/enums.ts";
import { ISAS_HERE } from "../arbitraries.ts";
import { assertSameBytes } from "../bytes.ts";
import { encodeRow } from "../encode.ts";
import { type Cache, layOut } from "../layouts.ts";
import { random } from "../random.ts";

const HEAD_DIM = 64, TOKENS = 50, WINDOW = 4;
const METHOD = chunkKv({ window: WINDOW });

/** One head whose query is all `query` and whose key rows are all `key(t)`. */
function constantRows(query: number, key: (token: number) => number) {
  const data = new Float32Array(WINDOW * HEAD_DIM).fill(query);
  const shape = { dtype: "f32", numKvHeads: 1, headDim: HEAD_DIM, kvLens: [TOKENS] } as const;
  return {
    queries: queryView({ data, numQHeads: 1, window: WINDOW, headDim: HEAD_DIM }),
    keys:
      layOut("contiguous", shape, (_, __, t) => encodeRow("f32", new Array(HEAD_DIM).fill(key(t))))
        .view,
  };
}

for (const isa of ISAS_HERE) {
  Deno.test(`equal logits share the attention equally on ${isa}`, () => {
    using compressor = new Compressor({ isa, threads: 1 });
    for (const key of [0, 1, -1, 1e-40, 1e4, -1e4]) {
      const scores = compressor.score({ ...constantRows(1, () => key), method: METHOD }).at(0);
      let expected = 0;
      for (let row = 0; row < WINDOW; row++) expected += 1 / (TOKENS - WINDOW + row + 1);
      for (let t = 0; t < TOKENS - WINDOW; t++) {
        assertAlmostEquals(scores[t] ?? NaN, expected, 1e-6 * expected, `key ${key}, token ${t}:`);
      }
    }
  });

  Deno.test(`one far larger logit takes all the attention on ${isa}`, () => {
    using compressor = new Compressor({ isa, threads: 1 });
    for (const [low, high] of [[0, 1e4], [-1e4, 0], [-1e4, 1e4], [-1e8, 1e8]] as const) {
      // scale 1 / HEAD_DIM: the logit is the key's value.
      const input = constantRows(1, (t) => t === 17 ? high : low);
      const scores = compressor.score({ ...input, method: METHOD, scale: 1 / HEAD_DIM }).at(0);
      scores.forEach((score, t) =>
        assertAlmostEquals(score, t === 17 ? WINDOW : 0, t === 17 ? 1e-6 : 0, `token ${t}:`)
      );
    }
  });

  Deno.test(`logits past what f32 tells apart are right or a numeric error on ${isa}`, () => {
    using compressor = new Compressor({ isa, threads: 1 });
    for (const high of [1e12, 1e30]) {
      const input = constantRows(1, (t) => t === 17 ? high : -high);
      try {
        const scores = compressor.score({ ...input, method: METHOD, scale: 1 / HEAD_DIM }).at(0);
        assertAlmostEquals(scores[17] ?? NaN, WINDOW, 1e-6);
      } catch (error) {
        if (!(error instanceof ChunkKvError)) throw error;
        assertEquals(error.code, "numeric", error.message);
      }
    }
  });

  Deno.test(`a soft cap holds logits of any size on ${isa}`, () => {
    using compressor = new Compressor({ isa, threads: 1 });
    const input = constantRows(1, (t) => t === 17 ? 1e6 : -1e6);
    const options = { ...input, method: METHOD, scale: 1 / HEAD_DIM, logitSoftcap: 2 };
    const scores = compressor.score(options).at(0);
    let expected = 0;
    for (let row = 0; row < WINDOW; row++) {
      expected += Math.exp(2) / (Math.exp(2) + (TOKENS - WINDOW + row) * Math.exp(-2));
    }
    assertAlmostEquals(scores[17] ?? NaN, expected, 1e-6 * expected);
  });

  Deno.test(`a key at minus infinity gets no attention on ${isa}`, () => {
    using compressor = new Compressor({ isa, threads: 1 });
    const input = constantRows(1, (t) => t % 3 === 1 ? -Infinity : 0);
    const scores = compressor.score({ ...input, method: METHOD }).at(0);
    for (let t = 0; t < TOKENS - WINDOW; t++) {
      const score = scores[t] ?? NaN;
      assert(t % 3 === 1 ? score === 0 : score > 0.1 && score < 0.2, `token ${t}: ${score}`);
    }
  });

  Deno.test(`rows that see nothing but minus infinity are a numeric error on ${isa}`, () => {
    using compressor = new Compressor({ isa, threads: 1 });
    const input = constantRows(1, () => -Infinity);
    const run = () => compressor.score({ ...input, method: METHOD });
    assertEquals(assertThrows(run, ChunkKvError, "Expected").code, "numeric");
  });

  Deno.test(`infinite logits are a numeric error and not a score on ${isa}`, () => {
    using compressor = new Compressor({ isa, threads: 1 });
    const input = constantRows(1, (t) => t === 5 ? Infinity : 0);
    const run = () => compressor.score({ ...input, method: METHOD });
    assertEquals(assertThrows(run, ChunkKvError, "Expected").code, "numeric");
  });

  Deno.test(`NaN anywhere is a numeric error, and moves nothing, on ${isa}`, () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.keys(DTYPES) as Dtype[]),
        fc.nat(TOKENS - 1),
        fc.nat(HEAD_DIM - 1),
        fc.boolean(),
        fc.integer({ min: 1, max: 3 }),
        (dtype, token, element, inQueries, threads) => {
          const layers = [0, 1].map((layer) => {
            const spoilt = layer === 1;
            return nanLayer(dtype, spoilt && !inQueries ? [token, element] : undefined, {
              row: spoilt && inQueries ? token % WINDOW : undefined,
              element,
            });
          });
          const before = layers.map((
            { keys, values },
          ) => [keys.bytes.slice(), values.bytes.slice()]);
          using compressor = new Compressor({ isa, threads });
          const views = layers.map(({ queries, keys, values }) => ({
            queries,
            keys: keys.view,
            values: values.view,
          }));
          for (const method of [METHOD, snapKv({ window: WINDOW })]) {
            const run = () => compressor.compress({ layers: views, method, budget: 20 });
            const error = assertThrows(run, ChunkKvError, "Expected");
            assertEquals(error.code, "numeric", error.message);
          }
          layers.forEach(({ keys, values }, layer) => {
            assertSameBytes(keys.bytes, before[layer]![0]!, `keys of layer ${layer}`);
            assertSameBytes(values.bytes, before[layer]![1]!, `values of layer ${layer}`);
          });
        },
      ),
      { numRuns: 60 },
    );
  });
}

/** A layer of one head, with NaN in one place of the keys or of the queries. */
function nanLayer(
  dtype: Dtype,
  inKeys: [token: number, element: number] | undefined,
  inQueries: { row: number | undefined; element: number },
): { queries: QueryView; keys: Cache; values: Cache } {
  const next = random(5);
  const shape = { dtype, numKvHeads: 1, headDim: HEAD_DIM, kvLens: [TOKENS] };
  const rows = () => {
    const row = Array.from({ length: HEAD_DIM }, () => next() - 0.5);
    return encodeRow(dtype, row);
  };
  const keys = layOut("padded", shape, rows);
  if (inKeys) {
    const [token, element] = inKeys;
    const at = keys.offset(0, 0, token);
    // NaN in the element itself, or in the scale of the block that it is in.
    const quantised = dtype === "q8_0" || dtype === "q4_0";
    const spoilt = dtype === "f8_e4m3" ? [0x7f] : [0x00, 0x7e];
    const bytes = keys.bytes;
    if (quantised) bytes.set(spoilt, at + Math.floor(element / 32) * (dtype === "q8_0" ? 34 : 18));
    else if (dtype === "f32") bytes.set([0, 0, 0xc0, 0x7f], at + element * 4);
    else if (dtype === "bf16") bytes.set([0xc0, 0x7f], at + element * 2);
    else bytes.set(spoilt, at + element * spoilt.length);
  }
  const data = Float32Array.from({ length: WINDOW * HEAD_DIM }, () => next() - 0.5);
  if (inQueries.row !== undefined) data[inQueries.row * HEAD_DIM + inQueries.element] = NaN;
  return {
    queries: queryView({ data, numQHeads: 1, window: WINDOW, headDim: HEAD_DIM }),
    keys,
    values: layOut("nhd", shape, rows),
  };
}

Deno.test("NaN in token scores is a numeric error", () => {
  using compressor = new Compressor({ threads: 1 });
  const scores = new Scores(1, 1, 20);
  scores.data[7] = NaN;
  const method = chunkKv({ window: 4 });
  const run = () => compressor.select({ scores, method, budget: 8 });
  assertEquals(assertThrows(run, ChunkKvError, "NaN").code, "numeric");
  // The window has no scores: what stands there is not read.
  scores.data[7] = 0;
  scores.data[17] = NaN;
  assertEquals(compressor.select({ scores, method, budget: 8 }).lens[0], 8);
});

Deno.test("NaN past a sequence's end is not read", () => {
  using compressor = new Compressor({ threads: 1 });
  const kvLens = Int32Array.of(20, 6);
  const scores = new Scores(2, 1, 20, kvLens);
  scores.data.fill(NaN, 26);
  const kept = compressor.select({ scores, method: chunkKv({ window: 4 }), budget: 8 });
  assertEquals([...kept.lens], [8, 6]);
  assertEquals(kept.at(1), Kept.from([[[0, 1, 2, 3, 4, 5]]]).at(0));
});
