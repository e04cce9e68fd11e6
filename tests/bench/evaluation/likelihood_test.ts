import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import {
  expNegative,
  likeliest,
  logLikelihood,
  ReferenceRows,
} from "../../../bench/evaluation/likelihood.ts";
import { klDivergence, logSoftmax } from "../../../bench/metrics/divergence.ts";
import { randomNumbers } from "../../bindings/llama_cpp/compare.ts";

const VOCAB = 500;

function randomLogits(rows: number, seed: number): Float32Array {
  const random = randomNumbers(seed);
  return Float32Array.from({ length: rows * VOCAB }, () => 30 * random() ** 4 - 8 * random());
}

Deno.test("expNegative() is the exponential of everything from 0 down", () => {
  for (let x = 0; x > -87; x -= 0.00371) {
    assertAlmostEquals(expNegative(x) / Math.exp(x), 1, 1e-10);
  }
  assertEquals(expNegative(0), 1);
  assertEquals(expNegative(-1000), 0);
  assertEquals(expNegative(-Infinity), 0);
});

Deno.test("divergence and likelihood are those of log softmax in double precision", () => {
  const [p, q] = [randomLogits(3, 1), randomLogits(3, 2)];
  const row = (logits: Float32Array, i: number) =>
    logSoftmax(logits.slice(i * VOCAB, (i + 1) * VOCAB));
  const expected = [0, 1, 2].map((i) => klDivergence(row(p, i), row(q, i)));
  const reference = new ReferenceRows({ logits: p, vocabSize: VOCAB });
  const found = reference.meanDivergence({ logits: q, vocabSize: VOCAB });
  // Probabilities in f32: 6e-8 of each term, and terms are of the size of the logits.
  assertAlmostEquals(found, expected.reduce((a, b) => a + b) / 3, 1e-6 * 40);
  assert(found > 0.1, `Expected distributions that differ but found ${found}`);
  for (const i of [0, 1, 2]) {
    const likelihood = logLikelihood({ logits: q, vocabSize: VOCAB }, i, 17);
    assertAlmostEquals(likelihood, row(q, i)[17]!, 1e-9);
  }
});

Deno.test("the divergence of the same logits is 0, not nearly", () => {
  const logits = randomLogits(4, 3);
  const reference = new ReferenceRows({ logits, vocabSize: VOCAB });
  assertEquals(reference.meanDivergence({ logits: logits.slice(), vocabSize: VOCAB }), 0);
  assertThrows(
    () => reference.meanDivergence({ logits: logits.slice(VOCAB), vocabSize: VOCAB }),
    RangeError,
    "Expected 2000 logits but found 1500",
  );
});

Deno.test("likeliest() finds the first of the highest logits in its row", () => {
  const logits = Float32Array.of(9, 9, 9, 1, 5, 5, -3, -1, -2);
  assertEquals([0, 1, 2].map((row) => likeliest({ logits, vocabSize: 3 }, row)), [0, 1, 1]);
});
