/**
 * Kept indices against the oracle: exactly the same ones, whatever the sizes.
 *
 * @module
 */
import {
  chunkKv,
  ChunkKvError,
  Compressor,
  full,
  h2o,
  layerBudget,
  pyramidKv,
  Scores,
  snapKv,
  streamingLlm,
} from "chunkkv";
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { anyAttention, anyKvLens, makeAttention } from "../arbitraries.ts";
import { pyramidLine, selectChunks, selectHeavy, selectSinks, selectTokens } from "../oracle.ts";
import { random } from "../random.ts";

const RUNS = 200;

const anySelection = fc.record({
  kvLens: anyKvLens,
  window: fc.integer({ min: 1, max: 64 }),
  budget: fc.oneof(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 100 })),
  chunkSize: fc.oneof(fc.integer({ min: 1, max: 15 }), fc.constantFrom(1, 64, 1000)),
  reduce: fc.constantFrom("sum", "mean", "max"),
  fill: fc.constantFrom("exact", "none"),
  numHeads: fc.integer({ min: 1, max: 4 }),
  levels: fc.constantFrom(1, 2, 5, 1000),
  threads: fc.integer({ min: 1, max: 3 }),
  seed: fc.integer(),
});

/**
 * Scores that sums in any order give exactly: multiples of 1/64 under 16. Few levels make many ties.
 */
function makeScores(
  kvLens: readonly number[],
  numHeads: number,
  { levels, seed }: { levels: number; seed: number },
): Scores {
  const next = random(seed);
  const kvLen = Math.max(...kvLens);
  const scores = new Scores(kvLens.length, numHeads, kvLen, Int32Array.from(kvLens));
  scores.data.forEach((_, i) => scores.data[i] = Math.floor(next() * levels) / 64);
  return scores;
}

Deno.test("select() keeps the oracle's chunks", () => {
  fc.assert(
    fc.property(anySelection, (one) => {
      const scores = makeScores(one.kvLens, 1, one);
      using compressor = new Compressor({ threads: one.threads });
      const kept = compressor.select({ scores, method: chunkKv(one), budget: one.budget });
      assertEquals([kept.batch, kept.numHeads], [one.kvLens.length, 1]);
      one.kvLens.forEach((tokens, b) =>
        assertEquals([...kept.at(b)], selectChunks(scores.at(b), tokens, one), `sequence ${b}`)
      );
    }),
    { numRuns: RUNS },
  );
});

Deno.test("select() of fill exact keeps min(budget, kvLen) tokens, ascending, the newest included", () => {
  fc.assert(
    fc.property(anySelection, (one) => {
      const scores = makeScores(one.kvLens, 1, one);
      using compressor = new Compressor({ threads: one.threads });
      const method = chunkKv({ ...one, fill: "exact" });
      const kept = compressor.select({ scores, method, budget: one.budget });
      one.kvLens.forEach((tokens, b) => {
        const indices = kept.at(b);
        assertEquals(indices.length, Math.min(one.budget, tokens));
        indices.forEach((token, i) => assert(i === 0 || token > indices[i - 1]!));
        const newest = Math.min(one.budget, one.window, tokens);
        assertEquals(
          [...indices.subarray(indices.length - newest)],
          Array.from({ length: newest }, (_, i) => tokens - newest + i),
        );
      });
    }),
    { numRuns: RUNS },
  );
});

Deno.test("select() keeps snapkv's tokens of each head", () => {
  fc.assert(
    fc.property(anySelection, (one) => {
      const scores = makeScores(one.kvLens, one.numHeads, one);
      using compressor = new Compressor({ threads: one.threads });
      for (const method of [snapKv({ window: one.window }), pyramidKv({ window: one.window })]) {
        const kept = compressor.select({ scores, method, budget: one.budget });
        assertEquals(kept.numHeads, one.numHeads);
        one.kvLens.forEach((tokens, b) => {
          for (let head = 0; head < one.numHeads; head++) {
            const expected = selectTokens(scores.at(b, head), tokens, one.budget, one.window);
            assertEquals([...kept.at(b, head)], expected, `sequence ${b}, head ${head}`);
          }
        });
      }
    }),
    { numRuns: RUNS },
  );
});

Deno.test("select() keeps h2o's heavy hitters of each head and as many newest tokens", () => {
  fc.assert(
    fc.property(anySelection, (one) => {
      const scores = makeScores(one.kvLens, one.numHeads, one);
      using compressor = new Compressor({ threads: one.threads });
      const kept = compressor.select({ scores, method: h2o(), budget: one.budget });
      assertEquals(kept.numHeads, one.numHeads);
      one.kvLens.forEach((tokens, b) => {
        for (let head = 0; head < one.numHeads; head++) {
          const expected = selectHeavy(scores.at(b, head), tokens, one.budget);
          assertEquals([...kept.at(b, head)], expected, `sequence ${b}, head ${head}`);
        }
      });
    }),
    { numRuns: RUNS },
  );
});

Deno.test("NaN anywhere in the scores of h2o is found", () => {
  using compressor = new Compressor({ threads: 1 });
  for (const at of [0, 50, 99]) {
    const scores = new Scores(1, 2, 100);
    scores.data[100 + at] = NaN;
    const run = () => compressor.select({ scores, method: h2o(), budget: 10 });
    assertEquals(assertThrows(run, ChunkKvError, "head 1").code, "numeric");
  }
});

Deno.test("layerBudget() of pyramidkv falls along the published line, with the budget as mean", () => {
  const anyPyramid = fc.record({
    tokens: fc.integer({ min: 0, max: 5000 }),
    budget: fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 5200 })),
    window: fc.integer({ min: 1, max: 64 }),
    numLayers: fc.integer({ min: 1, max: 40 }),
  });
  fc.assert(
    fc.property(anyPyramid, (one) => {
      const { tokens, budget, window, numLayers } = one;
      const budgets = Array.from(
        { length: numLayers },
        (_, layer) => layerBudget(pyramidKv({ window }), budget, tokens, layer, numLayers),
      );
      assertEquals(budgets.reduce((a, b) => a + b), numLayers * budget);
      budgets.forEach((found, layer) => {
        const line = pyramidLine(one, layer, numLayers);
        assert(
          Math.abs(found - line) < 1,
          `Expected about ${line} in layer ${layer}, not ${found}`,
        );
        assert(layer === 0 || found <= budgets[layer - 1]!, "budgets rise");
        assert(found >= Math.min(window, budget) && (found <= tokens || found === budget), "range");
        assertEquals(layerBudget(snapKv({ window }), budget, tokens, layer, numLayers), budget);
      });
    }),
    { numRuns: 500 },
  );
});

Deno.test("select() keeps streaming_llm's sinks and newest tokens, and full's all", () => {
  fc.assert(
    fc.property(anySelection, fc.integer({ min: 0, max: 40 }), (one, sinks) => {
      const scores = makeScores(one.kvLens, 1, one);
      using compressor = new Compressor({ threads: one.threads });
      const method = streamingLlm({ sinks });
      const kept = compressor.select({ scores, method, budget: one.budget });
      const all = compressor.select({ scores, method: full() });
      one.kvLens.forEach((tokens, b) => {
        assertEquals([...kept.at(b)], selectSinks(tokens, one.budget, sinks));
        assertEquals([...all.at(b)], Array.from({ length: tokens }, (_, t) => t));
      });
    }),
    { numRuns: RUNS },
  );
});

Deno.test("select() of many tokens keeps the oracle's chunks", () => {
  using compressor = new Compressor({ threads: 2 });
  for (const levels of [3, 1000]) {
    for (const chunkSize of [1, 7, 10]) {
      const kvLens = [20_003, 4099];
      const scores = makeScores(kvLens, 1, { levels, seed: chunkSize });
      const settings = {
        budget: 2048,
        window: 32,
        chunkSize,
        reduce: "sum",
        fill: "exact",
      } as const;
      const kept = compressor.select({ scores, method: chunkKv(settings), budget: 2048 });
      kvLens.forEach((tokens, b) =>
        assertEquals([...kept.at(b)], selectChunks(scores.at(b), tokens, settings))
      );
    }
  }
});

Deno.test("select() of queries and keys is select() of their scores", () => {
  fc.assert(
    fc.property(anyAttention, fc.integer({ min: 1, max: 80 }), (one, budget) => {
      const { queries, keys } = makeAttention(one);
      const { window, scale, logitSoftcap } = one;
      using compressor = new Compressor({ threads: one.threads });
      for (const method of [chunkKv({ window, chunkSize: 6 }), snapKv({ window })]) {
        const options = { queries, keys: keys.view, method, scale, logitSoftcap };
        const scores = compressor.score(options);
        const expected = compressor.select({ scores, method, budget }).indices;
        assertEquals(compressor.select({ ...options, budget }).indices, expected);
      }
    }),
    { numRuns: 50 },
  );
});

Deno.test("a sequence of a batch is chosen as if it were alone", () => {
  fc.assert(
    fc.property(anySelection, (one) => {
      const scores = makeScores(one.kvLens, 1, one);
      using compressor = new Compressor({ threads: one.threads });
      const method = chunkKv(one);
      const kept = compressor.select({ scores, method, budget: one.budget });
      one.kvLens.forEach((tokens, b) => {
        const alone = new Scores(1, 1, tokens, undefined, scores.at(b).slice());
        assertEquals(
          kept.at(b),
          compressor.select({ scores: alone, method, budget: one.budget }).at(0),
        );
      });
    }),
    { numRuns: 50 },
  );
});

Deno.test("keep is a fraction of the longest sequence", () => {
  using compressor = new Compressor({ threads: 1 });
  const scores = new Scores(2, 1, 100, Int32Array.of(50, 12));
  const kept = compressor.select({ scores, method: chunkKv({ window: 4 }), keep: 0.3 });
  assertEquals([...kept.lens], [15, 12]);
});

Deno.test("scores of the wrong number of heads are refused", () => {
  using compressor = new Compressor({ threads: 1 });
  const run = () =>
    compressor.select({ scores: new Scores(1, 2, 9), method: chunkKv(), budget: 4 });
  assertEquals(assertThrows(run, ChunkKvError, "num_heads").code, "invalid_argument");
});
