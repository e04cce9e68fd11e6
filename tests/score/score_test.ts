/**
 * Token and chunk scores against the oracle, for every kernel that this CPU runs.
 *
 * @module
 */
import {
  chunkKv,
  Compressor,
  h2o,
  type Isa,
  MAX_SPREAD,
  type Method,
  pyramidKv,
  type Scores,
  snapKv,
} from "chunkkv";
import { assertAlmostEquals, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  anyAttention,
  type Attention,
  type AttentionCase,
  ISAS_HERE,
  makeAttention,
} from "../arbitraries.ts";
import { assertSameBytes } from "../bytes.ts";
import {
  accumulatedMass,
  attentionMass,
  chunkScores,
  type Mass,
  pooledScores,
  summedScores,
} from "../oracle.ts";
import { scoreTolerance, SMALLEST_WEIGHT } from "../tolerances.ts";

const RUNS = 60;

/** Compares one row of scores, and that everything past it is 0. */
function checkRow(
  row: Float32Array,
  expected: number[],
  tolerance: number,
  weights: number,
  what: string,
): void {
  row.forEach((score, t) => {
    const golden = expected[t] ?? 0;
    const limit = t < expected.length ? golden * tolerance + weights * SMALLEST_WEIGHT : 0;
    assertAlmostEquals(score, golden, limit, `${what}, token ${t}:`);
  });
}

function checkScores(
  one: AttentionCase,
  isa: Isa,
  scores: Scores,
  masses: Mass[],
  expected: (mass: Mass, sequence: number) => number[][],
): void {
  assertEquals(scores.batch, one.kvLens.length);
  masses.forEach((mass, b) => {
    const weights = one.numKvHeads * one.group * one.window;
    const tolerance = scoreTolerance({
      isa,
      headDim: one.headDim,
      tokens: one.kvLens[b]!,
      weights,
      largestLogitSum: mass.largestLogitSum,
      logitSoftcap: one.logitSoftcap,
      bf16Keys: one.dtype === "bf16",
    });
    expected(mass, b).forEach((row, head) => {
      const begin = (b * scores.numHeads + head) * scores.kvLen;
      // The whole row, padding of shorter sequences included.
      const found = scores.data.subarray(begin, begin + scores.kvLen);
      checkRow(found, row, tolerance, weights, `sequence ${b}, head ${head}`);
    });
  });
}

function massesOf({ sequences }: Attention, one: AttentionCase): Mass[] {
  return sequences.map((sequence) => attentionMass(sequence, one.window, one));
}

// Mostly the method as published.
const anySpread = fc.oneof(fc.constant(1), fc.integer({ min: 2, max: MAX_SPREAD }));

for (const isa of ISAS_HERE) {
  Deno.test(`score() is the oracle's token scores on ${isa}`, () => {
    fc.assert(
      fc.property(anyAttention, fc.constantFrom(1, 3, 5, 7), anySpread, (one, poolSize, spread) => {
        const attention = makeAttention(one);
        const { queries, keys } = attention;
        const masses = massesOf(attention, one);
        const { window, scale, logitSoftcap } = one;
        using compressor = new Compressor({ isa, threads: one.threads });
        const score = (method: Method) =>
          compressor.score({ queries, keys: keys.view, method, scale, logitSoftcap });
        checkScores(
          one,
          isa,
          score(chunkKv({ window, spread })),
          masses,
          (mass) => [summedScores(mass, spread)],
        );
        for (const snap of [snapKv, pyramidKv]) {
          checkScores(one, isa, score(snap({ window, poolSize })), masses, (mass, b) => {
            const rows = one.group * Math.min(window, one.kvLens[b]!);
            return pooledScores(mass, rows, poolSize);
          });
        }
      }),
      { numRuns: RUNS },
    );
  });

  Deno.test(`score() of many rows and tokens is the oracle's on ${isa}`, () => {
    // 64 * 8 rows of 9,000 weights are more than kernels hold at once (16 MiB).
    const one: AttentionCase = {
      dtype: "f16",
      queryDtype: "f32",
      layout: "token_major",
      headDim: 8,
      numKvHeads: 2,
      group: 8,
      kvLens: [9000, 300],
      window: 64,
      threads: 2,
      queryRowMajor: true,
      withLogSumExp: false,
      spread: 2,
      scale: 0,
      logitSoftcap: 0,
      seed: 1,
    };
    const attention = makeAttention(one);
    const masses = massesOf(attention, one);
    using compressor = new Compressor({ isa, threads: one.threads });
    const method = chunkKv({ window: one.window });
    const { queries, keys } = attention;
    const scores = compressor.score({ queries, keys: keys.view, method });
    checkScores(one, isa, scores, masses, (mass) => [summedScores(mass)]);
  });

  Deno.test(`score() of h2o is the attention of all rows on ${isa}`, () => {
    fc.assert(
      // From a few rows of long sequences to more rows than a sequence has tokens, and than 64.
      fc.property(anyAttention, fc.integer({ min: 1, max: 150 }), (any, window) => {
        const one = { ...any, window, withLogSumExp: false };
        const attention = makeAttention(one);
        const { queries, keys, sequences } = attention;
        const masses = sequences.map((sequence) => accumulatedMass(sequence, window, one));
        using compressor = new Compressor({ isa, threads: one.threads });
        const { scale, logitSoftcap } = one;
        const options = { queries, keys: keys.view, method: h2o(), scale, logitSoftcap };
        const scores = compressor.score(options);
        assertEquals(scores.numHeads, one.numKvHeads);
        checkScores(one, isa, scores, masses, ({ mass }) => mass);
      }),
      { numRuns: RUNS },
    );
  });

  Deno.test(`score() gives the same bits with any number of threads on ${isa}`, () => {
    fc.assert(
      fc.property(anyAttention, (one) => {
        const { queries, keys } = makeAttention(one);
        const method = chunkKv({ window: one.window });
        const bits = [1, 2, 3].map((threads) => {
          using compressor = new Compressor({ isa, threads });
          const { data } = compressor.score({ ...one, queries, keys: keys.view, method });
          return data;
        });
        assertSameBytes(bits[1]!, bits[0]!, "2 threads");
        assertSameBytes(bits[2]!, bits[0]!, "3 threads");
      }),
      { numRuns: 20 },
    );
  });
}

Deno.test("chunkScores() reduces each chunk, the short last one too", () => {
  fc.assert(
    fc.property(
      anyAttention,
      fc.integer({ min: 1, max: 80 }),
      fc.constantFrom("sum", "mean", "max"),
      (one, chunkSize, reduce) => {
        const { queries, keys } = makeAttention({ ...one, headDim: 64 });
        using compressor = new Compressor({ threads: one.threads });
        const method = chunkKv({ window: one.window, chunkSize, reduce });
        const scores = compressor.score({ ...one, queries, keys: keys.view, method });
        const found = compressor.chunkScores({ scores, method });
        const direct = compressor.chunkScores({ ...one, queries, keys: keys.view, method });
        one.kvLens.forEach((tokens, b) => {
          const scored = Math.max(0, tokens - one.window);
          const expected = chunkScores(scores.at(b), scored, chunkSize, reduce);
          assertEquals(direct[b], found[b]);
          assertEquals(found[b]?.length, expected.length);
          // Sums of up to 80 f32 numbers, rounded to f32 once.
          expected.forEach((score, j) =>
            assertAlmostEquals(found[b]?.[j] ?? NaN, score, score * 2 ** -22, `chunk ${j}:`)
          );
        });
      },
    ),
    { numRuns: RUNS },
  );
});
