import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ChunkKvError, LlamaModel } from "chunkkv/llama-cpp";

import { assertSameBits, greedyLogits, randomIndices, randomNumbers } from "./compare.ts";
import { MaskedReference } from "./masked_reference.ts";
import { gemma3, LOAD_OPTIONS, THREADS } from "./models.ts";
import { storyTokens } from "./prompts.ts";
import { keepRows } from "./state.ts";

const model = await LlamaModel.load(gemma3(), LOAD_OPTIONS);
const GLOBAL = [5, 11, 17];

Deno.test("only global layers are compressed, sliding windows stay as they were", async () => {
  const random = randomNumbers(5);
  using context = model.createContext({ contextSize: 512, threads: THREADS });
  // Shorter than the window of 512: sizes and masks do not tell the layers apart.
  await context.prefill(storyTokens(model, 150));
  const state = context.saveState();
  const layers = GLOBAL.map(() => randomIndices(150, 50, 6, random));
  const report = context.compact(layers);
  assertEquals([report.before, report.after, report.slidingLayers], [150, 50, 15]);
  assertEquals(report.kept.map(({ layer }) => layer), GLOBAL);
  assertEquals(context.saveState(), keepRows(state, layers.map((set) => [set])));
  assertEquals(context.tokenCount(), 150);
});

Deno.test("keeping everything through the full path gives the bits of never compressing", async () => {
  const tokens = storyTokens(model, 100);
  using plain = model.createContext({ contextSize: 512, threads: THREADS });
  await plain.prefill(tokens);
  const expected = await greedyLogits(plain, 3);
  using context = model.createContext({ contextSize: 512, threads: THREADS });
  await context.prefill(tokens);
  context.compact(GLOBAL.map(() => Int32Array.from({ length: 100 }, (_, i) => i)));
  const found = await greedyLogits(context, 3);
  found.forEach((logits, i) => assertSameBits(logits, expected[i] ?? logits, `token ${i}`));
});

Deno.test("dropped tokens are as if masked in the global layers", async () => {
  const tokens = storyTokens(model, 150);
  using context = model.createContext({ contextSize: 512, threads: THREADS });
  await context.prefill(tokens);
  const { kept } = context.compress({ keep: 0.4 });
  using reference = new MaskedReference(model, gemma3());
  reference.decode(tokens);
  for (const { layer, indices } of kept) reference.keepOnly(layer, indices, 150);
  for (const token of storyTokens(model, 3, 40)) {
    await context.prefill([token]);
    assertSameBits(context.logits(), reference.decode([token]), `token ${token}`);
  }
});

Deno.test("a prompt longer than the window, turn after turn", async () => {
  using context = model.createContext({ contextSize: 1024, threads: THREADS });
  await context.prefill(storyTokens(model, 560));
  const state = context.saveState();
  const { kept, before, after } = context.compress({ keep: 0.2 });
  assertEquals([before, after], [560, 112]);
  const rebuilt = keepRows(state, kept.map(({ indices }) => indices));
  assertEquals(context.saveState(), rebuilt);
  await context.prefill(storyTokens(model, 40, 90));
  using other = model.createContext({ contextSize: 1024, threads: THREADS });
  other.restoreState(rebuilt);
  await other.prefill(storyTokens(model, 40, 90));
  assertSameBits(context.logits(), other.logits(), "after the second turn");
  assertEquals(context.compress({ keep: 0.5 }).before, 152);
  assertEquals([context.tokenCount(), context.cellCount()], [600, 76]);
  // The windows hold just what the next token sees, so generated tokens are captured as they come.
  const options = { temperature: 0, maxTokens: 3, ignoreEnd: true };
  for await (const _ of context.generate(options));
  const { refreshMilliseconds, ...third } = context.compress({ budget: 50 });
  assertEquals([third.before, third.after, refreshMilliseconds], [79, 50, 0]);
  assertEquals(context.positions().at(-1), 602);
});

Deno.test("a cancelled turn gives sliding windows back what it pushed out of them", async () => {
  const tokens = storyTokens(model, 60);
  using context = model.createContext({ contextSize: 1024, batchSize: 64, threads: THREADS });
  await context.prefill(tokens);
  const state = context.saveState();
  const controller = new AbortController();
  await assertRejects(
    () =>
      context.prefill(storyTokens(model, 400, 50), {
        signal: controller.signal,
        onProgress: ({ done }) => done >= 192 && controller.abort(),
      }),
    ChunkKvError,
    "aborted",
  );
  assertEquals(context.tokenCount(), 60);
  assertEquals(context.saveState(), state);
  // The windows are in other cells now: layers are still told apart.
  const { before, after, slidingLayers } = context.compress({ budget: 40 });
  assertEquals([before, after, slidingLayers], [60, 40, 15]);
});

Deno.test("positions shift only where sliding windows are full", async () => {
  using context = model.createContext({ contextSize: 2048, threads: THREADS });
  await context.prefill(storyTokens(model, 40));
  assertThrows(() => context.shift(5), ChunkKvError, "sliding windows needs them full");
  using full = model.createContext({
    contextSize: 2048,
    threads: THREADS,
    fullSlidingWindow: true,
  });
  await full.prefill(storyTokens(model, 60));
  full.compress({ budget: 40 });
  full.shift(5);
  await full.prefill([5]);
  assertEquals([full.tokenCount(), full.cellCount()], [66, 41]);
});

globalThis.addEventListener("unload", () => model[Symbol.dispose]());
