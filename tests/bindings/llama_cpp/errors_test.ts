/**
 * Bad input: each a typed error that says what was expected and found, nothing lost, and the process
 * goes on.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { LlamaModel } from "chunkkv/llama-cpp";

import { assertSameBits } from "./compare.ts";
import { prefilled, rejects, settings, throws, TOKENS } from "./expect_error.ts";
import { smolLm2 } from "./models.ts";
import { storyTokens } from "./prompts.ts";

const model = await LlamaModel.load(smolLm2());

// deno-lint-ignore no-explicit-any
const BAD_COMPRESSIONS: [what: string, options: any, expected: string][] = [
  ["keep 0", { keep: 0 }, "Expected keep to be a fraction above 0 and at most 1 but found 0"],
  ["negative keep", { keep: -0.1 }, "at most 1 but found -0.1"],
  ["keep above 1", { keep: 1.5 }, "at most 1 but found 1.5"],
  ["keep NaN", { keep: NaN }, "at most 1 but found NaN"],
  ["a keep that is no number", { keep: "0.5" }, 'found "0.5"'],
  ["budget 0", { budget: 0 }, "Expected budget to be an integer of at least 1 but found 0"],
  ["a broken budget", { budget: 1.5 }, "at least 1 but found 1.5"],
  ["neither keep nor budget", {}, "Expected budget or keep for chunkkv but found"],
  ["both keep and budget", { keep: 0.5, budget: 5 }, "Expected one of budget and keep"],
  ["chunk 0", { keep: 0.5, chunkSize: 0 }, "Expected chunkSize to be an integer of at least 1"],
  ["a chunk longer than the sequence", { keep: 0.5, chunkSize: 61, window: 32 }, "60 tokens but"],
  ["a window longer than the sequence", { keep: 0.5, window: 61 }, "60 tokens but found 61"],
  ["window 0", { keep: 0.5, window: 0 }, "Expected window to be an integer from 1 to 64"],
  ["window 65", { keep: 0.5, window: 65 }, "from 1 to 64 but found 65"],
  ["reuse 0", { keep: 0.5, reuse: 0 }, "Expected reuse to be an integer of at least 1"],
  ["an unknown method", { keep: 0.5, method: "magic" }, 'pyramidkv but found "magic"'],
  ["an unknown fill", { keep: 0.5, fill: "some" }, "Expected fill to be one of exact, none"],
  ["an even pool", { keep: 0.5, method: "snapkv", poolSize: 4 }, "poolSize to be odd"],
  ["a sequence that is not there", { keep: 0.5, sequence: 1 }, "from 0 to 0 but found 1"],
];

Deno.test("compression refuses settings out of their range, and changes nothing", async (t) => {
  using context = await prefilled(model);
  const state = context.saveState();
  for (const [what, options, expected] of BAD_COMPRESSIONS) {
    await t.step(what, () => {
      throws(() => context.compress(options), "invalid_argument", expected);
    });
  }
  assertEquals(context.saveState(), state);
  assertEquals(context.compress({ keep: 0.5 }).after, 30);
});

Deno.test("given indices must fit the sequence, and nothing changes otherwise", async (t) => {
  using context = await prefilled(model);
  const state = context.saveState();
  const layers = (set: number[], count = 30) => Array<number[]>(count).fill(set);
  const cases: [string, number[][] | number[][][], string][] = [
    ["too few layers", layers([1, 59], 29), "for the 30 global layers but found them for 29"],
    ["no layers", [], "at least 1 layer"],
    ["no indices", layers([]), "found 30, 1 and 0"],
    ["indices that do not rise", layers([5, 5, 59]), "found 5 after 5"],
    ["an index past the end", layers([5, 60]), "0 to 59 but found 60"],
    ["a negative index", layers([-1, 59]), "found -1 after -1"],
    ["without the newest token", layers([5, 58]), "newest token, 59, but found 58"],
    [
      "a broken index",
      layers([0.5, 59]),
      "an index to be an integer from -2147483647 to 2147483647 but",
    ],
    ["layers of unequal length", [...layers([1, 59], 29), [59]], "Expected 2 indices in layer 29"],
    ["too many heads", Array(30).fill([[59], [59]]), "Expected 1 or 3 index sets"],
  ];
  for (const [what, indices, expected] of cases) {
    await t.step(what, () => {
      throws(() => context.compact(indices), "invalid_argument", expected);
    });
  }
  assertEquals(context.saveState(), state);
});

Deno.test("compression before a prompt says so", () => {
  using context = model.createContext(settings);
  throws(() => context.compress({ keep: 0.5 }), "invalid_argument", "prefill first");
  throws(() => context.logits(), "invalid_argument", "no logits in sequence 0");
});

Deno.test("a context without flash attention runs, but cannot be compressed", async () => {
  using context = await prefilled(model, { flashAttention: false });
  const logits = context.logits();
  throws(() => context.compress({ keep: 0.5 }), "unsupported", "Expected a context with flash");
  assertSameBits(context.logits(), logits, "after the refusal");
  await context.prefill([1]);
  assertEquals(context.tokenCount(), TOKENS + 1);
});

Deno.test("a prompt that does not fit is refused whole", async () => {
  using context = model.createContext(settings);
  await rejects(
    () => context.prefill(storyTokens(model, 257)),
    "invalid_argument",
    "Expected a prompt of 1 to 256 tokens, the context's size, but found 257",
  );
  await rejects(() => context.prefill([]), "invalid_argument", "but found 0");
  assertEquals(context.tokenCount(), 0);
  await context.prefill(storyTokens(model, TOKENS));
  const state = context.saveState();
  await rejects(() => context.prefill(storyTokens(model, 200)), "engine", "but found too few");
  assertEquals(context.saveState(), state);
});

Deno.test("generating in a full cache ends in an error, and what is there stays", async () => {
  using context = model.createContext(settings);
  await context.prefill(storyTokens(model, 250));
  let pieces = 0;
  await rejects(
    async () => {
      // The model would not stop by itself in the middle of a sentence.
      for await (const _ of context.generate({ temperature: 0 })) pieces++;
    },
    "engine",
    "free cells for 1 more tokens",
  );
  assertEquals([context.tokenCount(), pieces], [256, 6]);
  assertEquals(context.compress({ keep: 0.5 }).after, 128);
  for await (const _ of context.generate({ temperature: 0, maxTokens: 3 }));
  assertEquals(context.tokenCount(), 259);
});

Deno.test("tokens outside the vocabulary are refused", async () => {
  using context = await prefilled(model);
  for (const token of [-1, 49152, 0.5, NaN]) {
    await rejects(() => context.prefill([token]), "invalid_argument", "a token from 0 to 49151");
    throws(() => model.tokenizer.detokenize([token]), "invalid_argument", "a token from 0");
  }
  assertEquals(context.tokenCount(), TOKENS);
});

Deno.test("numbers that are no 32-bit integers are refused before C wraps them", async () => {
  using context = await prefilled(model, { sequences: 2 });
  const state = context.saveState();
  const wraps = 2 ** 32;
  for (const value of [1.5, NaN, wraps, -wraps, "x", null]) {
    // deno-lint-ignore no-explicit-any
    const bad = value as any;
    const uses: (() => unknown)[] = [
      () => context.tokenCount(bad),
      () => context.cellCount(bad),
      () => context.kvBytes(bad),
      () => context.positions(bad),
      () => context.logits(bad),
      () => context.clear(bad),
      () => context.remove(bad),
      () => context.remove(0, bad),
      () => context.remove(0, 1, bad),
      () => context.copy(bad, 1),
      () => context.copy(0, bad),
      () => context.shift(bad),
      () => context.shift(1, bad),
      () => context.saveState(bad),
    ];
    for (const use of uses) throws(use, "invalid_argument", `Expected `);
    if (value === null) continue;
    throws(() => context.restoreState(state, { sequence: bad }), "invalid_argument", "sequence to");
    throws(() => context.compress({ keep: 0.5, sequence: bad }), "invalid_argument", "sequence to");
    const last = typeof value === "number" ? value + TOKENS - 1 : bad;
    throws(() => context.compact(Array(30).fill([last])), "invalid_argument", "an index to be");
    await rejects(() => context.prefill([1], { sequence: bad }), "invalid_argument", "sequence to");
    await rejects(
      () => context.generate({ sequence: bad }).next(),
      "invalid_argument",
      "sequence to",
    );
  }
  assertEquals(context.saveState(), state);
});

Deno.test("what counts something says why it cannot", () => {
  using context = model.createContext(settings);
  for (const count of ["tokenCount", "cellCount", "kvBytes", "positions", "saveState"] as const) {
    throws(() => context[count](1), "invalid_argument", "from 0 to 0 but found 1");
  }
});

// deno-lint-ignore no-explicit-any
const BAD_CONTEXTS: [any, string][] = [
  [{ contextSize: 0 }, "Expected contextSize to be an integer from 1"],
  [{ contextSize: -5 }, "found -5"],
  [{ batchSize: 0 }, "Expected batchSize"],
  [{ threads: 0 }, "Expected threads"],
  [{ sequences: 257 }, "Expected sequences to be an integer from 1 to 256 but found 257"],
  [{ kvType: "f8_e4m3" }, "to be one of f32, f16, bf16, q8_0, q4_0"],
  [{ keyType: "int8" }, 'found "int8"'],
  [{ isa: "mmx" }, "Expected isa to be one of"],
];

Deno.test("contexts refuse settings out of their range", () => {
  for (const [options, expected] of BAD_CONTEXTS) {
    throws(() => model.createContext(options), "invalid_argument", expected);
  }
});

Deno.test("what the engine refuses is told in its words", () => {
  throws(
    () => model.createContext({ ...settings, valueType: "q8_0", flashAttention: false }),
    "engine",
    "flash_attn",
  );
});

Deno.test("samplers refuse settings out of their range", async () => {
  using context = await prefilled(model);
  const cases = [
    { temperature: -1 },
    { temperature: NaN },
    { topK: -1 },
    { topP: 0 },
    { topP: 1.1 },
    { minP: -0.1 },
    { repeatPenalty: 0 },
    { seed: 2 ** 32 },
    { maxTokens: -1 },
  ];
  for (const options of cases) {
    await rejects(() => context.generate(options).next(), "invalid_argument", "Expected");
  }
  assertEquals(context.tokenCount(), TOKENS);
});

Deno.test("a file that is no model is told in the engine's words", async (t) => {
  const folder = Deno.makeTempDirSync({ prefix: "chunkkv-models-" });
  try {
    const whole = Deno.readFileSync(smolLm2());
    const cases: [name: string, bytes: Uint8Array, includes: string][] = [
      ["truncated in its tensors", whole.subarray(0, whole.length >> 1), "within the file bounds"],
      ["truncated in its header", whole.subarray(0, 5000), "failed to"],
      ["of garbage", crypto.getRandomValues(new Uint8Array(5000)), "magic"],
      ["that is empty", new Uint8Array(), "magic"],
    ];
    for (const [name, bytes, includes] of cases) {
      await t.step(name, async () => {
        const path = `${folder}/model.gguf`;
        Deno.writeFileSync(path, bytes);
        await rejects(() => LlamaModel.load(path), "engine", includes);
      });
    }
    await t.step("that is not there", async () => {
      await rejects(() => LlamaModel.load(`${folder}/none.gguf`), "engine", "No such file");
    });
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

globalThis.addEventListener("unload", () => model[Symbol.dispose]());
