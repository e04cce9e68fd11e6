import { assert, assertEquals } from "@std/assert";
import { LlamaModel } from "chunkkv/llama-cpp";

import {
  assertSameBits,
  greedyLogits,
  largestDifference,
  randomIndices,
  randomNumbers,
} from "./compare.ts";
import { MaskedReference } from "./masked_reference.ts";
import { LOAD_OPTIONS, smolLm2, THREADS } from "./models.ts";
import { storyTokens } from "./prompts.ts";
import { keepRows } from "./state.ts";

const model = await LlamaModel.load(smolLm2(), LOAD_OPTIONS);
const settings = { contextSize: 512, threads: THREADS };
const LAYERS = 30;
const PROMPT = 200;

Deno.test("keeping everything through the full path gives the bits of never compressing", async () => {
  const tokens = storyTokens(model, PROMPT);
  using plain = model.createContext(settings);
  await plain.prefill(tokens);
  const expected = await greedyLogits(plain, 6);
  using context = model.createContext(settings);
  await context.prefill(tokens);
  const all = Int32Array.from({ length: PROMPT }, (_, i) => i);
  const report = context.compact(Array(LAYERS).fill(all));
  assertEquals([report.before, report.after, report.bytesFreed], [PROMPT, PROMPT, 0]);
  const found = await greedyLogits(context, 6);
  found.forEach((logits, i) => assertSameBits(logits, expected[i] ?? logits, `token ${i}`));
});

Deno.test("given indices, each layer its own, give the bits of a state rebuilt row by row", async () => {
  const random = randomNumbers(1);
  using context = model.createContext(settings);
  await context.prefill(storyTokens(model, PROMPT));
  const state = context.saveState();
  const layers = Array.from({ length: LAYERS }, () => randomIndices(PROMPT, 60, 8, random));
  context.compact(layers);
  assertEquals(context.tokenCount(), PROMPT);
  assertEquals(context.cellCount(), 60);
  const oldest = Int32Array.from(
    layers[0] ?? [],
    (_, i) => Math.min(...layers.map((set) => set[i] ?? -1)),
  );
  assertEquals(context.positions(), oldest);
  const compacted = context.saveState();
  const found = await greedyLogits(context, 4);
  const rebuilt = keepRows(state, layers.map((set) => [set]));
  assertEquals(compacted, rebuilt);
  using other = model.createContext(settings);
  other.restoreState(rebuilt);
  let last = found[0] ?? new Float32Array();
  for (const logits of found.slice(1)) {
    await other.prefill([last.indexOf(Math.max(...last))]);
    assertSameBits(other.logits(), logits, "after the rebuilt state");
    last = logits;
  }
});

Deno.test("an index set per head gives the bits of a state rebuilt head by head", async () => {
  const random = randomNumbers(2);
  using context = model.createContext(settings);
  await context.prefill(storyTokens(model, PROMPT));
  const state = context.saveState();
  const layers = Array.from(
    { length: LAYERS },
    () => Array.from({ length: 3 }, () => randomIndices(PROMPT, 50, 8, random)),
  );
  context.compact(layers);
  assertEquals(context.saveState(), keepRows(state, layers));
});

for (const method of ["chunkkv", "snapkv", "h2o", "pyramidkv"]) {
  Deno.test(`${method}: dropped tokens are as if masked in that layer and head`, () =>
    droppedIsMasked(method));
}

async function droppedIsMasked(method: string) {
  const tokens = storyTokens(model, PROMPT);
  using context = model.createContext({ ...settings, accumulateAttention: method === "h2o" });
  await context.prefill(tokens);
  const { kept } = context.compress({ method, keep: 0.3 });
  for (const { indices } of kept) assertEquals(indices.length, method === "chunkkv" ? 1 : 3);
  using reference = new MaskedReference(model, smolLm2());
  reference.decode(tokens);
  for (const { layer, indices } of kept) reference.keepOnly(layer, indices, PROMPT);
  const next = storyTokens(model, 6, 40);
  for (const token of next) {
    await context.prefill([token]);
    // Attention adds up what it sees token by token: leaving one out is masking it, to the last bit.
    assertSameBits(context.logits(), reference.decode([token]), `token ${token}`);
  }
  using whole = model.createContext(settings);
  await whole.prefill(tokens);
  for (const token of next) await whole.prefill([token]);
  const effect = largestDifference(whole.logits(), context.logits());
  assert(effect > 0.5, `Expected dropping to matter but found logits only ${effect} off`);
}

Deno.test("chunkkv keeps the chunks with the attention that an independent sum finds", async () => {
  const [window, chunkSize, budget] = [32, 10, 92];
  // Only whole chunks, so that none is filled up with part of another.
  const count = window + 16 * chunkSize;
  const tokens = storyTokens(model, count);
  using context = model.createContext(settings);
  await context.prefill(tokens);
  const { kept } = context.compress({ budget, window, chunkSize });
  using reference = new MaskedReference(model, smolLm2());
  reference.decode(tokens, window);
  for (const { layer, indices } of kept) {
    const heads = reference.attention(layer, count, 3);
    const chunks = Array.from({ length: 16 }, (_, index) => ({
      index,
      score: heads.flatMap((sums) => [
        ...sums.subarray(index * chunkSize, (index + 1) * chunkSize),
      ]).reduce((a, b) => a + b),
    }));
    const best = chunks.toSorted((a, b) => b.score - a.score).slice(0, 6);
    const worst = best.at(-1)?.score ?? 0;
    const set = new Set(indices[0]);
    assertEquals(set.size, budget);
    for (const { index, score } of chunks) {
      const isKept = set.has(index * chunkSize) && set.has(index * chunkSize + 1);
      // Chunks this close to the border may fall on either side of it.
      if (Math.abs(score - worst) < 1e-3 * worst) continue;
      assertEquals(isKept, score > worst, `layer ${layer}, chunk ${index}`);
    }
  }
});

Deno.test("a window that straddles batches and micro-batches keeps the same chunks", async () => {
  const tokens = storyTokens(model, PROMPT);
  const keptBy = async (options: { batchSize?: number; microBatchSize?: number }) => {
    using context = model.createContext({ ...settings, ...options });
    await context.prefill(tokens);
    const report = context.compress({ keep: 0.4 });
    assertEquals(report.refreshMilliseconds, 0);
    return report.kept.map(({ indices }) => new Set(indices[0]));
  };
  const whole = await keptBy({});
  for (const parts of [{ batchSize: 24 }, { microBatchSize: 24 }]) {
    const split = await keptBy(parts);
    const shared = whole.map((set, l) => set.intersection(split[l] ?? new Set()).size / set.size);
    // Other batches round otherwise: a chunk near the border may change sides.
    const mean = shared.reduce((a, b) => a + b) / LAYERS;
    assert(mean > 0.95, `Expected the same chunks but found ${mean} of them shared`);
  }
});

for (const method of ["chunkkv", "snapkv", "h2o", "streaming_llm"]) {
  Deno.test(`${method} keeps exactly the budget, the newest token included`, async () => {
    using context = model.createContext({ ...settings, accumulateAttention: method === "h2o" });
    await context.prefill(storyTokens(model, 120));
    const before = context.kvBytes();
    const report = context.compress({ method, budget: 45 });
    assertEquals([report.before, report.after], [120, 45]);
    assertEquals(
      report.kept.map(({ layer }) => layer),
      Array.from({ length: LAYERS }, (_, i) => i),
    );
    for (const { indices } of report.kept) {
      assertEquals(indices.length, method === "snapkv" || method === "h2o" ? 3 : 1);
      for (const set of indices) assertEquals([set.length, set.at(-1)], [45, 119]);
    }
    assertEquals(before - context.kvBytes(), report.bytesFreed);
    assertEquals(context.kvBytes() * 120, before * 45);
    await context.prefill([1]);
    assertEquals([context.tokenCount(), context.cellCount()], [121, 46]);
  });
}

Deno.test("full, and a budget that everything fits in, change nothing", async () => {
  using context = model.createContext(settings);
  await context.prefill(storyTokens(model, 80));
  const state = context.saveState();
  for (const options of [{ method: "full" }, { keep: 1 }, { budget: 80 }, { budget: 1000 }]) {
    const report = context.compress(options);
    assertEquals([report.before, report.after, report.bytesFreed], [80, 80, 0]);
  }
  assertEquals(context.saveState(), state);
});

Deno.test("layers that reuse indices have those of the first of their group", async () => {
  using context = model.createContext(settings);
  await context.prefill(storyTokens(model, 120));
  const { kept } = context.compress({ keep: 0.5, reuse: 4 });
  const sets = kept.map(({ indices }) => String(indices[0]));
  sets.forEach((set, layer) => assertEquals(set, sets[layer - layer % 4]));
  assert(new Set(sets).size > 4, "Expected groups to differ");
});

Deno.test("whole chunks only: layers still have equally many tokens", async () => {
  using context = model.createContext(settings);
  await context.prefill(storyTokens(model, 115));
  const { kept, after } = context.compress({ budget: 70, fill: "none", chunkSize: 12 });
  for (const { indices } of kept) assertEquals(indices[0]?.length, after);
  assert(after > 32 && after <= 70, `Expected a window and whole chunks but found ${after}`);
});

Deno.test("compressing on another thread does the same", async () => {
  const tokens = storyTokens(model, 100);
  using context = model.createContext(settings);
  await context.prefill(tokens);
  const running = context.compressAsync({ keep: 0.5 });
  const report = await running;
  assertEquals([report.before, report.after], [100, 50]);
  using other = model.createContext(settings);
  await other.prefill(tokens);
  assertEquals(other.compress({ keep: 0.5 }).kept, report.kept);
});

globalThis.addEventListener("unload", () => model[Symbol.dispose]());
