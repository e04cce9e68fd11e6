/**
 * Prompts longer than the cache: bounded cells, positions that go on, what an abort leaves.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ChunkKvError, LlamaModel, type StreamingOptions } from "chunkkv/llama-cpp";

import { assertSameBits, greedyLogits } from "./compare.ts";
import { rejects } from "./expect_error.ts";
import { smolLm2, THREADS } from "./models.ts";
import { storyTokens } from "./prompts.ts";

const model = await LlamaModel.load(smolLm2());
const settings = { contextSize: 512, batchSize: 128, threads: THREADS };
const CELLS = 512;
// Half of it: 240 tokens fill it down to its reserve of 16.
const small = { ...settings, contextSize: 256, batchSize: 64 };

Deno.test("a prompt three times the cache goes through it, and generation goes on", async () => {
  using context = model.createContext(settings);
  const tokens = storyTokens(model, 1500);
  const progress: number[] = [];
  let [most, least] = [0, CELLS];
  const report = await context.prefill(tokens, {
    streaming: { budget: 200 },
    onProgress: ({ done, total }) => {
      assertEquals([total, context.tokenCount()], [1500, done]);
      progress.push(done);
      most = Math.max(most, context.cellCount());
      if (done > 512) least = Math.min(least, context.cellCount());
    },
  });
  // 480 tokens fill the cache down to its reserve of 32; then 280 each time.
  assertEquals([report.tokens, report.compactions], [1500, 4]);
  assert(report.compactionMilliseconds > 0 && report.compactionMilliseconds < report.milliseconds);
  assertEquals([most, least], [480, 200 + 128]);
  assertEquals([progress[0], progress.at(-1)], [0, 1500]);
  assert(progress.every((done, i) => i === 0 || done > (progress[i - 1] ?? done)), `${progress}`);
  assertEquals([context.tokenCount(), context.cellCount()], [1500, 200 + 1500 - 480 - 3 * 280]);
  const positions = context.positions();
  assertEquals(positions.at(-1), 1499);
  assert(positions.every((position, i) => i === 0 || position > (positions[i - 1] ?? position)));
  for await (const _ of context.generate({ temperature: 0, maxTokens: 8, ignoreEnd: true }));
  assertEquals([context.tokenCount(), context.positions().at(-1)], [1508, 1507]);
});

Deno.test("it is what prefill and compress by hand do", async () => {
  const tokens = storyTokens(model, 380);
  const method = { method: "chunkkv", budget: 100, chunkSize: 7, window: 16 };
  using byHand = model.createContext(small);
  await byHand.prefill(tokens.subarray(0, 244));
  byHand.compress(method);
  await byHand.prefill(tokens.subarray(244));
  using context = model.createContext(small);
  const { compactions } = await context.prefill(tokens, { streaming: { ...method, reserve: 12 } });
  assertEquals(compactions, 1);
  assertSameBits(context.logits(), byHand.logits(), "after the prompt");
  assertEquals(context.saveState(), byHand.saveState());
});

Deno.test("a prompt that fits gives the bits of reading it without streaming", async () => {
  const tokens = storyTokens(model, 300);
  using plain = model.createContext(settings);
  await plain.prefill(tokens);
  using context = model.createContext(settings);
  const { compactions } = await context.prefill(tokens, { streaming: true });
  assertEquals(compactions, 0);
  assertEquals(context.saveState(), plain.saveState());
  const [expected, found] = [await greedyLogits(plain, 3), await greedyLogits(context, 3)];
  found.forEach((logits, i) => assertSameBits(logits, expected[i] ?? logits, `token ${i}`));
});

Deno.test("a sequence is continued, others stay as they are", async () => {
  using context = model.createContext({ ...settings, sequences: 2 });
  await context.prefill(storyTokens(model, 100), { sequence: 1 });
  const other = context.saveState(1);
  await context.prefill(storyTokens(model, 370));
  // 80 of them in the reserve of 90 already: the compaction comes before the first token.
  const streaming = { budget: 150, reserve: 90 };
  const { compactions } = await context.prefill(storyTokens(model, 250, 60), { streaming });
  assertEquals([compactions, context.tokenCount()], [2, 620]);
  assertEquals(context.cellCount(), 150 + 250 - (CELLS - 90 - 100 - 150));
  assertEquals(context.saveState(1), other);
});

Deno.test("settings that cannot work are refused before anything is read", async () => {
  using context = model.createContext(settings);
  const cases: [StreamingOptions & { keep?: number }, string][] = [
    [{ budget: 417 }, "a budget of at most 416 tokens, which leaves room to read on (512 cells"],
    [{ reserve: 200 }, "at most 248 tokens"],
    [{ budget: 0 }, "budget to be an integer from 1"],
    [{ budget: 31 }, "a budget of at least 32 tokens, the window, but found 31"],
    [{ reserve: -1 }, "reserve to be an integer from 0"],
    [{ chunkSize: 0 }, "chunkSize to be an integer"],
    [{ method: "nonsense" }, "nonsense"],
    [{ method: "full" }, 'a method of streaming that drops tokens but found "full"'],
    [{ keep: 0.5 }, "one of budget and keep"],
  ];
  for (const [streaming, message] of cases) {
    await rejects(() => context.prefill([1, 2], { streaming }), "invalid_argument", message);
  }
  await rejects(
    () => context.prefill([], { streaming: true }),
    "invalid_argument",
    "a prompt of 1 to 512 tokens",
  );
  await rejects(
    () => context.prefill([1], { streaming: true, sequence: 1 }),
    "invalid_argument",
    "sequence",
  );
  assertEquals(context.tokenCount(), 0);
  await context.prefill([1, 2], { streaming: { budget: 416 } });
});

Deno.test("what is stopped keeps the pieces before, and the rest can be read", async () => {
  using context = model.createContext(small);
  const tokens = storyTokens(model, 420);
  const streaming = { budget: 100 };
  const stopAt = async (limit: number) => {
    const controller = new AbortController();
    const error = await assertRejects(
      () =>
        context.prefill(tokens, {
          streaming,
          signal: controller.signal,
          onProgress: ({ done }) => done >= limit && controller.abort("enough"),
        }),
      ChunkKvError,
    );
    assertEquals([error.code, error.cause], ["cancelled", "enough"]);
    return error.message;
  };
  // In the first piece: as if it had not been.
  assert(!(await stopAt(128)).includes("stay"));
  assertEquals(context.cellCount(), 0);
  // At the end of the first piece, before the compaction.
  assert((await stopAt(240)).endsWith("the prompt's first 240 of 420 tokens stay in the sequence"));
  assertEquals([context.tokenCount(), context.cellCount()], [240, 240]);
  context.clear();
  // In the second piece, of 140 tokens.
  assert((await stopAt(300)).endsWith("the prompt's first 240 of 420 tokens stay in the sequence"));
  assertEquals([context.tokenCount(), context.cellCount()], [240, 100]);
  const rest = await context.prefill(tokens.subarray(240), { streaming });
  assertEquals([rest.compactions, context.tokenCount()], [1, 420]);
  using whole = model.createContext(small);
  await whole.prefill(tokens, { streaming });
  assertEquals(context.saveState(), whole.saveState());
});

Deno.test("an error in a progress callback is passed on as it is", async () => {
  using context = model.createContext(small);
  const onProgress = ({ done }: { done: number }) => {
    if (done > 240) throw new TypeError("mine");
  };
  const tokens = storyTokens(model, 350);
  const streaming = { budget: 100 };
  await assertRejects(() => context.prefill(tokens, { streaming, onProgress }), TypeError, "mine");
  assertEquals([context.tokenCount(), context.cellCount()], [240, 100]);
});

Deno.test("a sequence that is changed between two pieces is noticed", async () => {
  using context = model.createContext(small);
  const onProgress = ({ done }: { done: number }) => done === 240 && context.clear();
  const prompt = storyTokens(model, 260);
  await rejects(
    () => context.prefill(prompt, { streaming: true, onProgress: (p) => void onProgress(p) }),
    "busy",
    "changed meanwhile",
  );
});

Deno.test("a cache that cannot be compressed says so when it is full", async () => {
  using context = model.createContext({ ...small, flashAttention: false });
  const error = await assertRejects(
    () => context.prefill(storyTokens(model, 260), { streaming: true }),
    ChunkKvError,
    "flash attention",
  );
  assertEquals([error.code, context.tokenCount()], ["unsupported", 240]);
});

Deno.test("a conversation that is compacted while it is read goes on", async () => {
  using context = model.createContext(settings);
  const long = model.tokenizer.detokenize(storyTokens(model, 600));
  const { compactions } = await context.prefill(
    [{ role: "user", content: `${long} Who is Ada?` }],
    { streaming: { budget: 150 } },
  );
  assertEquals(compactions, 1);
  for await (const _ of context.generate({ temperature: 0, maxTokens: 4, ignoreEnd: true }));
  const before = context.tokenCount();
  // Only the new turn goes in, not the conversation so far.
  const { tokens } = await context.prefill([{ role: "user", content: "And Bruno?" }]);
  assert(tokens < 30, `${tokens}`);
  assertEquals(context.tokenCount(), before + tokens);
});

globalThis.addEventListener("unload", () => model[Symbol.dispose]());
