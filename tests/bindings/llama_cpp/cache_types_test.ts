import { Buffer } from "node:buffer";

import { assert, assertEquals } from "@std/assert";
import { type KeptLayer, type KvType, LlamaModel } from "chunkkv/llama-cpp";

import { argmax, assertSameBits, greedyLogits, randomIndices, randomNumbers } from "./compare.ts";
import { GGML_TYPES, MaskedReference } from "./masked_reference.ts";
import { LOAD_OPTIONS, smolLm2, THREADS } from "./models.ts";
import { storyTokens } from "./prompts.ts";
import { keepRows, parseState } from "./state.ts";

const model = await LlamaModel.load(smolLm2(), LOAD_OPTIONS);
const PROMPT = 100;
const KEPT = 45;

const TYPES: { keyType: KvType; valueType: KvType }[] = [
  { keyType: "f32", valueType: "f32" },
  { keyType: "bf16", valueType: "bf16" },
  { keyType: "q8_0", valueType: "q8_0" },
  { keyType: "q8_0", valueType: "f16" },
];

let standard: readonly KeptLayer[] | undefined;

/** What a context with a cache of these types keeps of the same prompt. */
async function keptBy(types: (typeof TYPES)[number]): Promise<readonly KeptLayer[]> {
  using context = model.createContext({ contextSize: 256, threads: THREADS, ...types });
  await context.prefill(storyTokens(model, PROMPT));
  const { kept } = context.compress({ budget: KEPT, window: 20 });
  assertEquals(context.cellCount(), KEPT);
  return kept;
}

for (const types of TYPES) {
  const name = `${types.keyType} keys and ${types.valueType} values`;
  const settings = { contextSize: 256, threads: THREADS, ...types };

  Deno.test(`${name}: the full path keeps the bits, and compaction is as rebuilt`, async () => {
    const tokens = storyTokens(model, PROMPT);
    const random = randomNumbers(3);
    using context = model.createContext(settings);
    await context.prefill(tokens);
    const state = context.saveState();
    const [cache] = parseState(state).caches;
    assertEquals(cache?.keys[0]?.type, GGML_TYPES[types.keyType as "f16"]);
    assertEquals(cache?.values[0]?.type, GGML_TYPES[types.valueType as "f16"]);

    const all = Int32Array.from({ length: PROMPT }, (_, i) => i);
    context.compact(Array(30).fill(all));
    assertEquals(context.saveState(), state);
    const [, found] = await greedyLogits(context, 1);
    using plain = model.createContext(settings);
    await plain.prefill(tokens);
    const [, expected] = await greedyLogits(plain, 1);
    assertSameBits(found ?? new Float32Array(), expected ?? new Float32Array(), name);

    const layers = Array.from({ length: 30 }, () => randomIndices(PROMPT + 1, KEPT, 4, random));
    const before = context.saveState();
    context.compact(layers);
    assertEquals(context.saveState(), keepRows(before, layers.map((set) => [set])));
  });

  Deno.test(`${name}: keys are scored in that type, queries as attention sees them`, async () => {
    // The same prompt in f16 is the standard: the types only round otherwise.
    standard ??= await keptBy({ keyType: "f16", valueType: "f16" });
    const found = await keptBy(types);
    const shares = found.map(({ indices }, layer) =>
      new Set(indices[0]).intersection(new Set(standard?.[layer]?.indices[0])).size / KEPT
    );
    const mean = shares.reduce((a, b) => a + b) / shares.length;
    assert(mean > 0.9, `Expected the indices of an f16 cache but found ${mean} of them shared`);
  });
}

for (const leaves of ["nothing", "a part"]) {
  Deno.test(`q8_0: rows are whole where cells before the sequence are free, of another that leaves ${leaves}`, async () => {
    using context = model.createContext({
      contextSize: 256,
      threads: THREADS,
      kvType: "q8_0",
      sequences: 2,
    });
    await context.prefill(storyTokens(model, 80), { sequence: 0 });
    await context.prefill(storyTokens(model, PROMPT, 30), { sequence: 1 });
    if (leaves === "nothing") context.clear(0);
    else context.compress({ budget: 40, sequence: 0 });
    const [other, state] = [context.saveState(0), context.saveState(1)];
    const { kept } = context.compress({ budget: KEPT, sequence: 1 });
    const expected = keepRows(state, kept.map(({ indices }) => indices));
    // Their difference would take minutes to print.
    assert(Buffer.compare(context.saveState(1), expected) === 0, "Expected the kept rows");
    assert(Buffer.compare(context.saveState(0), other) === 0, "Expected the other's rows");
  });
}

for (const type of ["f32", "bf16"] as const) {
  Deno.test(`${type}: dropped tokens are as if masked in that layer`, async () => {
    const tokens = storyTokens(model, PROMPT);
    using context = model.createContext({ contextSize: 256, threads: THREADS, kvType: type });
    await context.prefill(tokens);
    const { kept } = context.compress({ budget: KEPT });
    using reference = new MaskedReference(model, smolLm2(), { contextSize: 256, type });
    reference.decode(tokens);
    for (const { layer, indices } of kept) reference.keepOnly(layer, indices, PROMPT);
    for (let i = 0; i < 3; i++) {
      const token = argmax(context.logits());
      await context.prefill([token]);
      assertSameBits(context.logits(), reference.decode([token]), `token ${i}`);
    }
  });
}

globalThis.addEventListener("unload", () => model[Symbol.dispose]());
