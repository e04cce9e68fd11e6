/**
 * Layers with budgets of their own: what is surplus in a layer's cells is as if it were not there.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { layerBudget, pyramidKv } from "chunkkv";
import {
  ChunkKvError,
  type CompressionReport,
  type KeptLayer,
  type LlamaContext,
  LlamaModel,
} from "chunkkv/llama-cpp";

import { assertSameBits, largestDifference } from "./compare.ts";
import { type GGML_TYPES, MaskedReference } from "./masked_reference.ts";
import { gemma3, smolLm2, THREADS } from "./models.ts";
import { storyTokens } from "./prompts.ts";
import { buildState, parseState } from "./state.ts";

const model = await LlamaModel.load(smolLm2());
const settings = { contextSize: 512, threads: THREADS };
const [LAYERS, HEADS, PROMPT, BUDGET] = [30, 3, 150, 60];
const tokens = storyTokens(model, PROMPT);
const next = [...storyTokens(model, 6, 40)];

/** A context whose first sequence has read the prompt and been compressed. */
async function compressed(
  options: Record<string, unknown> = {},
): Promise<[LlamaContext, CompressionReport]> {
  const context = model.createContext({ ...settings, ...options });
  await context.prefill(tokens);
  return [context, context.compress({ method: "pyramidkv", budget: BUDGET })];
}

/** The whole cache with those tokens masked. */
function masked(kept: readonly KeptLayer[], type: keyof typeof GGML_TYPES = "f16") {
  const reference = new MaskedReference(model, smolLm2(), { type });
  reference.decode(tokens);
  for (const { layer, indices } of kept) reference.keepOnly(layer, indices, PROMPT);
  return reference;
}

async function assertGoesOn(
  context: LlamaContext,
  reference: MaskedReference,
  sequence = 0,
  tokens = next,
) {
  for (const token of tokens) {
    await context.prefill([token], { sequence });
    assertSameBits(context.logits(sequence), reference.decode([token]), `token ${token}`);
  }
}

Deno.test("each layer keeps its budget, and the cache as many cells as the largest", async () => {
  const [context, { kept, after, before, bytesFreed }] = await compressed();
  using _ = context;
  const budgets = kept.map((_, layer) => layerBudget(pyramidKv(), BUDGET, PROMPT, layer, LAYERS));
  assertEquals(
    kept.map(({ indices }) => indices.map(({ length }) => length)),
    budgets.map((budget) => Array(HEADS).fill(budget)),
  );
  assertEquals(budgets.reduce((a, b) => a + b), LAYERS * BUDGET);
  assert(budgets[0]! > 1.4 * BUDGET && budgets[29]! < 0.6 * BUDGET, `${budgets}`);
  assertEquals([before, after, context.cellCount()], [PROMPT, budgets[0], budgets[0]]);
  // What is freed is what cells are freed, not what layers have dropped.
  assertEquals(bytesFreed, (before - after) * LAYERS * 2 * HEADS * 64 * 2);
  assertEquals(context.kvBytes(), after * LAYERS * 2 * HEADS * 64 * 2);
  for (const { indices } of kept) {
    for (const set of indices) {
      assertEquals([...set.subarray(-32)], Array.from({ length: 32 }, (_, i) => PROMPT - 32 + i));
    }
  }
});

for (const kvType of ["f16", "f32", "q8_0", "bf16"] as const) {
  Deno.test(`${kvType}: hidden cells get no attention, to the last bit`, async () => {
    const [context, { kept }] = await compressed({ kvType });
    using _ = context;
    using reference = masked(kept, kvType);
    await assertGoesOn(context, reference);
  });
}

Deno.test("surplus cells would matter if they were not hidden", async () => {
  const [context, { kept }] = await compressed();
  using _ = context;
  // Keys that are almost zero hide nothing.
  const state = parseState(context.saveState());
  const rows = state.caches[0]!.keys.flatMap(({ rows }) => rows);
  const hidden = rows.filter((row) => row.every((byte) => byte === 0));
  const dropped = kept.map(({ indices }) => context.cellCount() - indices[0]!.length);
  assertEquals(hidden.length, dropped.reduce((a, b) => a + b));
  for (const row of hidden) row[0] = 1;
  using other = model.createContext(settings);
  other.restoreState(buildState(state), { tokens });
  using reference = masked(kept);
  await other.prefill(next.slice(0, 1));
  const difference = largestDifference(other.logits(), reference.decode(next.slice(0, 1)));
  assert(difference > 0.5, `Expected other logits but found them only ${difference} off`);
});

Deno.test("cells stay hidden wherever the engine puts them", async () => {
  const [context, { kept, after }] = await compressed({ sequences: 3 });
  using _ = context;
  await context.prefill(storyTokens(model, 40, 90), { sequence: 1 });
  const state = context.saveState();
  context.copy(0, 2);
  using copied = masked(kept);
  await assertGoesOn(context, copied, 2);
  // Freed cells, hidden ones among them, are taken by tokens of the other sequence.
  context.clear(2);
  context.clear(0);
  await context.prefill(storyTokens(model, 60, 10), { sequence: 1 });
  // The same with cells in which nothing was ever hidden.
  using plain = model.createContext({ ...settings, sequences: 3 });
  await plain.prefill(tokens);
  assertEquals(plain.compress({ method: "snapkv", budget: after }).after, after);
  await plain.prefill(storyTokens(model, 40, 90), { sequence: 1 });
  plain.copy(0, 2);
  for (const token of next) await plain.prefill([token], { sequence: 2 });
  plain.clear(2);
  plain.clear(0);
  await plain.prefill(storyTokens(model, 60, 10), { sequence: 1 });
  assertSameBits(context.logits(1), plain.logits(1), "the other sequence");
  context.restoreState(state, { tokens });
  assertEquals(context.cellCount(), after);
  using restored = masked(kept);
  await assertGoesOn(context, restored);
  // And in a context that has never compressed anything.
  using other = model.createContext(settings);
  other.restoreState(state, { tokens });
  using again = masked(kept);
  await assertGoesOn(other, again);
});

Deno.test("the newest tokens can be taken back, and positions shifted", async () => {
  const [context, { kept }] = await compressed();
  using _ = context;
  const logits = () => context.logits();
  await context.prefill(next);
  const expected = logits();
  context.remove(PROMPT);
  await context.prefill(next);
  assertSameBits(logits(), expected, "after taking back");
  context.remove(PROMPT - 10);
  await context.prefill(tokens.subarray(-10));
  using reference = masked(kept);
  for (const token of next) {
    await context.prefill([token]);
    const golden = reference.decode([token]);
    const difference = largestDifference(logits(), golden);
    // The last 10 tokens were computed again, on what layers had kept.
    assert(difference < 8 && difference > 0, `${difference}`);
  }
  context.shift(7);
  await context.prefill(next.slice(0, 1));
  assert(logits().every(Number.isFinite), "Expected finite logits");
});

Deno.test("compressing again chooses among what each layer has", async () => {
  for (const method of ["chunkkv", "pyramidkv", "snapkv", "streaming_llm"]) {
    const [context, first] = await compressed();
    using _ = context;
    const more = storyTokens(model, 40, 60);
    // One by one: rounding as in the reference.
    for (const token of more) await context.prefill([token]);
    const second = context.compress({ method, budget: 50 });
    const { before, after, kept } = second;
    assertEquals(before, first.after + 40);
    const composed = kept.map(({ layer, indices }, l) => {
      const own = first.kept[l]!.indices;
      const sets = own.map((set, head) => {
        const surplus = first.after - set.length, window = 32;
        return Array.from(indices[indices.length > 1 ? head : 0]!, (place) => {
          if (place >= first.after) return PROMPT + place - first.after;
          const isTail = place >= first.after - window;
          assert(isTail || place < set.length - window, `${method}: layer ${layer} kept a hole`);
          return set[isTail ? place - surplus : place]!;
        });
      });
      return { layer, sets };
    });
    const lens = kept.map(({ indices }) => indices[0]!.length);
    assertEquals(after, Math.max(...lens));
    if (method === "pyramidkv") assert(lens[29]! < 50 && after > 50, `${lens}`);
    using reference = masked(first.kept);
    for (const token of more) reference.decode([token]);
    reference.forget();
    for (const { layer, sets } of composed) reference.keepOnly(layer, sets, PROMPT + 40);
    await assertGoesOn(context, reference);
  }
});

Deno.test("what does not go with layers that differ is refused, and nothing is lost", async () => {
  const [context, { kept, after }] = await compressed();
  using _ = context;
  const refuses = (run: () => unknown, text: string, code: string) =>
    assertEquals(assertThrows(run, ChunkKvError, text).code, code);
  using reference = masked(kept);
  // Right after it the newest token would be decoded again, to find its cell.
  await assertGoesOn(context, reference, 0, next.slice(0, 1));
  const sets = kept.map(() => [0, after]);
  refuses(() => context.compact(sets), "after pyramidkv", "unsupported");
  refuses(() => context.compress({ budget: 40, reuse: 2 }), "layer_reuse 2", "unsupported");
  assertEquals(context.compress({ keep: 1 }).after, after + 1);
  assertEquals(context.compress({ method: "full" }).after, after + 1);
  await assertGoesOn(context, reference, 0, next.slice(1));
});

Deno.test("of a model with sliding windows the global layers have a pyramid", async () => {
  using gemma = await LlamaModel.load(gemma3());
  using context = gemma.createContext({ ...settings, contextSize: 1024 });
  await context.prefill(storyTokens(gemma, 300));
  const { kept, after, slidingLayers } = context.compress({ method: "pyramidkv", budget: 100 });
  const lens = kept.map(({ indices }) => indices[0]!.length);
  assertEquals(lens.reduce((a, b) => a + b), 100 * lens.length);
  assertEquals([after, slidingLayers + lens.length], [lens[0], gemma.info.numLayers]);
  assert(lens[0]! > 150 && lens.at(-1)! < 50, `${lens}`);
  using reference = new MaskedReference(gemma, gemma3());
  reference.decode(storyTokens(gemma, 300));
  for (const { layer, indices } of kept) reference.keepOnly(layer, indices, 300);
  await assertGoesOn(context, reference, 0, [...storyTokens(gemma, 3, 40)]);
  // A whole prompt: it has one kv head, so that the reference's mask is the engine's own.
  const prompt = storyTokens(gemma, 20, 60);
  await context.prefill(prompt);
  assertSameBits(context.logits(), reference.decode(prompt), "a prompt");
  await assertGoesOn(context, reference, 0, [...storyTokens(gemma, 3, 80)]);
});

globalThis.addEventListener("unload", () => model[Symbol.dispose]());
