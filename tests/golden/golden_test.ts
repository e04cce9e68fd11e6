/**
 * What kvpress 0.5.5 and the paper's rule in float64 returned, on every instruction set and in every
 * layout. `CHUNKKV_GOLDEN` names another folder of the same format.
 *
 * Of H2O (`observed_attention`) the scores are compared: kvpress keeps no newest tokens with it, and its
 * budgets of PyramidKV put the window inside of them, which the published code does not.
 *
 * @module
 */
import {
  chunkKv,
  Compressor,
  contiguousKv,
  h2o,
  Kept,
  type Method,
  queryView,
  rowBytes,
  snapKv,
  streamingLlm,
  usableIsas,
} from "chunkkv";
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { type Cache, gatherRows, layOut, LAYOUTS, type Shape } from "../layouts.ts";
import { GOLDEN_CHUNK_SCORE, KVPRESS_TOKEN_SCORE } from "../tolerances.ts";
import { type GoldenCase, readFolder, readTensor, sha256 } from "./folder.ts";

const folder = Deno.env.get("CHUNKKV_GOLDEN") ||
  decodeURIComponent(new URL("data", import.meta.url).pathname);
const { manifest, bin } = readFolder(folder);
const isas = usableIsas();
const counts = { cases: 0, scores: 0, kept: 0, compactions: 0, skipped: [] as string[] };

/** A case's inputs, decoded once. */
function inputsOf(golden: GoldenCase) {
  const tensor = (name: string) => {
    const info = golden.tensors[name];
    assert(info, `Expected tensor ${name} in ${golden.id} but found none`);
    return readTensor(bin, info);
  };
  const { batch, kv_heads: numKvHeads, head_dim: headDim, n } = golden;
  const shape: Shape = { dtype: "f32", numKvHeads, headDim, kvLens: new Array(batch).fill(n) };
  const row = rowBytes("f32", headDim);
  const keys = new Uint8Array(tensor("k").buffer);
  const keyRow = (b: number, h: number, t: number) => {
    const begin = ((b * numKvHeads + h) * n + t) * row;
    return keys.subarray(begin, begin + row);
  };
  // v_formula of the manifest.
  const valueRow = (b: number, h: number, t: number) =>
    new Uint8Array(
      Float32Array.from(
        { length: headDim },
        (_, j) => ((t * 31 + h * 57 + b * 101 + j * 7) % 256 - 128) / 128,
      ).buffer,
    );
  const queries = queryView({
    data: tensor("q") as Float32Array<ArrayBuffer>,
    batch,
    numQHeads: golden.q_heads,
    window: golden.window,
    headDim,
  });
  return { tensor, shape, keyRow, valueRow, queries };
}

type Inputs = ReturnType<typeof inputsOf>;

function checkTokenScores(compressor: Compressor, golden: GoldenCase, inputs: Inputs, keys: Cache) {
  const { n, window, kernel_size, kv_heads } = golden;
  const method = snapKv({ window, poolSize: kernel_size });
  const scores = compressor.score({ queries: inputs.queries, keys: keys.view, method });
  const expected = inputs.tensor("scores");
  for (let b = 0; b < golden.batch; b++) {
    for (let h = 0; h < kv_heads; h++) {
      const row = scores.at(b, h);
      for (let t = 0; t < n - window; t++) {
        const what = `token score of sequence ${b}, head ${h}, token ${t}:`;
        const golden = expected[(b * kv_heads + h) * n + t];
        assert(golden !== undefined);
        assertAlmostEquals(row[t] ?? NaN, golden, KVPRESS_TOKEN_SCORE, what);
        counts.scores++;
      }
    }
  }
}

function checkChunkScores(compressor: Compressor, golden: GoldenCase, inputs: Inputs, keys: Cache) {
  const method = chunkKv({
    chunkSize: golden.chunk_length,
    window: golden.window,
    fill: "none",
  });
  const scores = compressor.score({ queries: inputs.queries, keys: keys.view, method });
  const expected = inputs.tensor("paper_chunk_scores");
  const found = compressor.chunkScores({ scores, method });
  assertEquals(found.reduce((total, row) => total + row.length, 0), expected.length);
  found.flatMap((row) => [...row]).forEach((score, i) => {
    const golden = expected[i] ?? NaN;
    assertAlmostEquals(score, golden, golden * GOLDEN_CHUNK_SCORE, `chunk score ${i}:`);
    counts.scores++;
  });

  const kept = compressor.select({ scores, method, budget: golden.paper.budget_L });
  golden.paper.rows.forEach(({ ambiguous, exact_tie }, b) => {
    if (ambiguous && !exact_tie) {
      counts.skipped.push(`${golden.id} row ${b} (chunkkv)`);
      return;
    }
    assertEquals([...kept.at(b)], [...inputs.tensor(`paper_kept_row${b}`)], `kept of row ${b}`);
    counts.kept++;
  });
}

function checkBaseline(
  compressor: Compressor,
  { inputs, keys, method, budget, expected }: {
    inputs: Inputs;
    keys: Cache;
    method: Method;
    budget: number;
    /** Kept of all sets, or of one that all sequences share. */
    expected: number[];
  },
) {
  const kept = compressor.select({ queries: inputs.queries, keys: keys.view, method, budget });
  const found = kept.indices.flat().map((set) => [...set]);
  const sets = method.name === "snapkv" ? [found.flat()] : found;
  for (const set of sets) assertEquals(set, expected, `kept of ${method.name}`);
  counts.kept++;
}

function checkCompaction(compressor: Compressor, golden: GoldenCase, inputs: Inputs, keys: Cache) {
  const { batch, kv_heads } = golden;
  const indices = inputs.tensor("kept");
  const shared = golden.tensors.kept?.shape.length === 1;
  const length = shared ? indices.length : indices.length / batch / kv_heads;
  const setOf = (b: number, h: number) => {
    const begin = shared ? 0 : (b * kv_heads + h) * length;
    return [...indices.subarray(begin, begin + length)];
  };
  const kept = Kept.from(
    Array.from({ length: batch }, (_, b) =>
      Array.from(
        { length: shared ? 1 : kv_heads },
        (_, h) => setOf(b, h).sort((x, y) => x - y),
      )),
  );
  const values = layOut(
    keys.view.blockSize ? "nhd" : "token_major",
    inputs.shape,
    inputs.valueRow,
  );
  compressor.compact({ keys: keys.view, values: values.view, kept });
  // kvpress's own indices are in no order where it chose them per head.
  const inItsOrder = (b: number, h: number) => setOf(b, h).map((t) => kept.at(b, h).indexOf(t));
  const { k_out_sha256, v_out_sha256 } = golden.kvpress;
  const keyRows = gatherRows(keys, inputs.shape, inItsOrder);
  const valueRows = gatherRows(values, inputs.shape, inItsOrder);
  assertEquals(sha256(keyRows), k_out_sha256, "sha256 of kept keys");
  assertEquals(sha256(valueRows), v_out_sha256, "sha256 of kept values");
  counts.compactions++;
}

function runCase(golden: GoldenCase, compressor: Compressor) {
  const inputs = inputsOf(golden);
  const { n_kept, ambiguous } = golden.baselines.snapkv;
  for (const layout of LAYOUTS) {
    const keys = layOut(layout, inputs.shape, inputs.keyRow);
    checkTokenScores(compressor, golden, inputs, keys);
    checkChunkScores(compressor, golden, inputs, keys);
    if (ambiguous) {
      counts.skipped.push(`${golden.id} (snapkv)`);
    } else {
      checkBaseline(compressor, {
        inputs,
        keys,
        method: snapKv({ window: golden.window, poolSize: golden.kernel_size }),
        budget: n_kept,
        expected: [...inputs.tensor("snapkv_kept_sorted")],
      });
    }
    checkBaseline(compressor, {
      inputs,
      keys,
      method: streamingLlm({ sinks: golden.baselines.streamingllm.n_sink }),
      budget: golden.baselines.streamingllm.n_kept,
      expected: [...inputs.tensor("streamingllm_kept")],
    });
    checkCompaction(compressor, golden, inputs, keys);
  }
  counts.cases++;
}

Deno.test("the golden folder holds cases and this CPU runs a kernel", () => {
  assert(manifest.cases.length > 0, `Expected cases in ${folder} but found none`);
  assert(isas.length > 0, "Expected a usable instruction set but found none");
});

for (const isa of isas) {
  for (const golden of manifest.cases) {
    Deno.test(`golden ${golden.id} comes out on ${isa}`, () => {
      using compressor = new Compressor({ isa, threads: 2 });
      assertEquals(compressor.isa, isa);
      runCase(golden, compressor);
    });
  }
}

for (const isa of isas) {
  for (const golden of manifest.observed_attention) {
    Deno.test(`golden ${golden.id} of observed attention comes out on ${isa}`, () => {
      const { batch, kv_heads: numKvHeads, n: kvLen, head_dim: headDim, group } = golden;
      const tensor = (name: keyof typeof golden.tensors) =>
        readTensor(bin, golden.tensors[name]) as Float32Array<ArrayBuffer>;
      using compressor = new Compressor({ isa, threads: 2 });
      const scores = compressor.score({
        queries: queryView({
          data: tensor("q_full"),
          batch,
          numQHeads: golden.q_heads,
          window: kvLen,
          headDim,
        }),
        keys: contiguousKv({ data: tensor("k"), batch, numKvHeads, kvLen, headDim }),
        method: h2o(),
      });
      const expected = tensor("scores");
      assertEquals(scores.data.length, expected.length);
      scores.data.forEach((sum, i) => {
        // kvpress takes the mean over the group and over the queries that see the token.
        const mean = sum / group / (kvLen - i % kvLen);
        assertAlmostEquals(mean, expected[i] ?? NaN, KVPRESS_TOKEN_SCORE, `score ${i}:`);
      });
    });
  }
}

Deno.test("every golden case has run, on every instruction set", () => {
  const skipped = [...new Set(counts.skipped)];
  console.log(
    `golden: ${counts.cases} runs of ${manifest.cases.length} cases on ${isas.join(", ")}: ` +
      `${counts.scores} scores, ${counts.kept} kept rows, ${counts.compactions} compactions; ` +
      `skipped as ambiguous: ${skipped.join(", ") || "none"}`,
  );
  assertEquals(counts.cases, manifest.cases.length * isas.length);
});
