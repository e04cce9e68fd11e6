import { assertEquals, assertThrows } from "@std/assert";
import { ChunkKvError, type LlamaContext, LlamaModel } from "chunkkv/llama-cpp";

import { assertSameBits } from "./compare.ts";
import { gemma3, smolLm2, THREADS } from "./models.ts";
import { storyTokens } from "./prompts.ts";

const models = {
  smolLm2: await LlamaModel.load(smolLm2()),
  gemma3: await LlamaModel.load(gemma3()),
};
const SETTINGS = { contextSize: 2048, threads: THREADS, sequences: 2 };
// Longer than Gemma's sliding window of 512, so that its oldest cells are gone.
const LENGTH = 700;

for (const [name, model] of Object.entries(models)) {
  const tokens = storyTokens(model, LENGTH);
  const head = tokens.subarray(0, LENGTH - 1);

  const readOn = async (context: LlamaContext, sequence: number) => {
    await context.prefill(tokens.subarray(LENGTH - 1), { sequence });
    const logits = context.logits(sequence);
    const report = context.compress({ keep: 0.2, window: 32, sequence });
    return { logits, report, state: context.saveState(sequence) };
  };

  Deno.test(`${name}: a restored snapshot is compressed as the original, its queries are known`, async () => {
    using context = model.createContext(SETTINGS);
    await context.prefill(head);
    using snapshot = context.snapshot();
    assertEquals(snapshot.tokenCount, LENGTH - 1);
    const original = await readOn(context, 0);
    context.restore(snapshot);
    const again = await readOn(context, 0);
    assertSameBits(again.logits, original.logits, "after the restored prompt");
    assertEquals(again.report.kept, original.report.kept);
    assertEquals(again.report.refreshMilliseconds, 0);
    assertEquals(again.state, original.state);
    context.clear();
    context.restore(snapshot, { sequence: 1 });
    const elsewhere = await readOn(context, 1);
    assertEquals(elsewhere.report.kept, original.report.kept);
    assertEquals(elsewhere.report.refreshMilliseconds, 0);
  });

  for (const method of ["h2o", "pyramidkv"]) {
    Deno.test(`${name}: ${method} chooses the same after a restored snapshot, which goes on elsewhere`, async () => {
      using context = model.createContext({ ...SETTINGS, accumulateAttention: true });
      await context.prefill(head);
      using snapshot = context.snapshot();
      const compress = async () => {
        await context.prefill(tokens.subarray(LENGTH - 1));
        return context.compress({ method, keep: 0.2 }).kept;
      };
      const kept = await compress();
      using compressed = context.snapshot();
      // What is only tried leaves no attention behind.
      context.restore(snapshot);
      await context.score(tokens.subarray(0, 1));
      assertEquals(await compress(), kept);
      using other = model.createContext(SETTINGS);
      other.restore(compressed, { sequence: 0 });
      await other.prefill(storyTokens(model, 50, 9), { sequence: 1 });
      using another = other.snapshot(1);
      const texts = await other.generateEach([0, 1], { temperature: 0, maxTokens: 8 });
      const alone = await answer(context, 0);
      other.restore(another, { sequence: 1 });
      assertEquals(texts.map(({ text }) => text), [alone, await answer(other, 1)]);
    });
  }

  Deno.test(`${name}: a snapshot goes on in another context, logits included`, async () => {
    using context = model.createContext(SETTINGS);
    await context.prefill(tokens);
    context.compress({ keep: 0.3 });
    using snapshot = context.snapshot();
    using other = model.createContext({ ...SETTINGS, contextSize: 512 });
    other.restore(snapshot, { sequence: 1 });
    assertSameBits(other.logits(1), context.logits(), "restored");
    assertEquals(other.tokenCount(1), LENGTH);
    assertEquals(other.cellCount(1), context.cellCount());
    assertEquals(await answer(other, 1), await answer(context, 0));
  });

  Deno.test(`${name}: a context made where the snapshot's own was is another one`, async () => {
    using snapshot = await (async () => {
      using context = model.createContext(SETTINGS);
      await context.prefill(tokens);
      return context.snapshot();
    })();
    using other = model.createContext(SETTINGS); // the allocator hands out the same address
    other.restore(snapshot);
    await other.prefill(tokens.subarray(0, 40));
    using fresh = model.createContext(SETTINGS);
    await fresh.prefill(tokens);
    await fresh.prefill(tokens.subarray(0, 40));
    assertEquals(other.compress({ keep: 0.5 }).kept, fresh.compress({ keep: 0.5 }).kept);
  });

  Deno.test(`${name}: scoring steps by no more tokens than a batch has`, async () => {
    using wide = model.createContext(SETTINGS);
    const next = tokens.subarray(0, 5);
    const expected = await wide.score(next);
    using narrow = model.createContext({ ...SETTINGS, sequences: 16, batchSize: 2 });
    assertEquals((await narrow.score(next)).length, expected.length);
    assertEquals(narrow.tokenCount(), 0);
  });

  Deno.test(`${name}: scoring gives the logits of reading on and leaves the sequence alone`, async () => {
    using context = model.createContext({ ...SETTINGS, scoreBatchSize: 16 });
    await context.prefill(tokens);
    const before = context.saveState();
    const logits = context.logits();
    const next = storyTokens(model, 40).slice(20); // a batch of 16 and one of 4
    const { vocabSize } = model.tokenizer;
    const scores = await context.score(next);
    assertEquals(scores.length, next.length * vocabSize);
    assertEquals([context.tokenCount(), context.cellCount()], [LENGTH, LENGTH]);
    assertSameBits(context.logits(), logits, "the logits that were there");
    assertEquals(context.saveState(), before);
    await context.prefill(next.subarray(0, 16));
    assertSameBits(context.logits(), scores.slice(15 * vocabSize, 16 * vocabSize), "token 15");
    await context.prefill(next.subarray(16));
    assertSameBits(context.logits(), scores.slice(19 * vocabSize), "the newest token");
  });

  Deno.test(`${name}: sequences that generate together say what each says alone`, async () => {
    using context = model.createContext(SETTINGS);
    await context.prefill(tokens.subarray(0, 300), { sequence: 0 });
    await context.prefill(tokens.subarray(0, 130), { sequence: 1 });
    using first = context.snapshot(0);
    using second = context.snapshot(1);
    const alone = [await answer(context, 0), await answer(context, 1)];
    context.restore(first, { sequence: 0 });
    context.restore(second, { sequence: 1 });
    const together = await context.generateEach([1, 0], { temperature: 0, maxTokens: 8 });
    assertEquals(together.map(({ text }) => text), alone.toReversed());
    assertEquals(together.map(({ tokens, reason }) => [tokens.length, reason]), [
      [8, "length"],
      [8, "length"],
    ]);
    assertEquals([context.tokenCount(0), context.tokenCount(1)], [308, 138]);
    context.restore(first, { sequence: 0 });
    const stop = alone[0]!.slice(3, 6);
    const [stopped] = await context.generateEach([0], {
      temperature: 0,
      maxTokens: 8,
      stop: [stop],
    });
    assertEquals(stopped?.text, alone[0]!.slice(0, alone[0]!.indexOf(stop)));
    assertEquals(stopped?.reason, "stop");
  });
}

Deno.test("what cannot be scored, generated or restored is refused and nothing changes", async () => {
  using context = models.smolLm2.createContext({
    contextSize: 256,
    threads: THREADS,
    sequences: 2,
  });
  const tokens = storyTokens(models.smolLm2, 100);
  await context.prefill(tokens);
  const state = context.saveState();
  const refusals: [() => Promise<unknown>, string][] = [
    [() => context.score([]), "at least one token"],
    [() => context.score([-1]), "a token from 0"],
    [() => context.score([1], { sequence: 2 }), "a sequence from 0 to 1"],
    [() => context.score(new Int32Array(200)), "free cells"],
    [() => context.generateEach([0, 0]), "different sequences"],
    [() => context.generateEach([0, 7]), "different sequences from 0 to 1 but found 7"],
    [() => context.generateEach([0, 1]), "an empty one"],
    [() => context.generateEach([0], { maxTokens: -1 }), "maxTokens"],
  ];
  for (const [act, words] of refusals) {
    const error = await act().then(() => undefined, (error: unknown) => error);
    assertEquals(error instanceof ChunkKvError, true, words);
    assertEquals((error as Error).message.includes(words), true, (error as Error).message);
    assertEquals(context.saveState(), state, words);
  }
  using snapshot = context.snapshot();
  using other = models.gemma3.createContext({ contextSize: 256, threads: THREADS });
  assertThrows(() => other.restore(snapshot), ChunkKvError, "another's");
  using small = models.smolLm2.createContext({
    contextSize: 256,
    kvType: "q8_0",
    threads: THREADS,
  });
  assertThrows(() => small.restore(snapshot), ChunkKvError);
  snapshot[Symbol.dispose]();
  assertThrows(() => context.restore(snapshot), ChunkKvError, "disposed");
  assertEquals(context.saveState(), state);
});

async function answer(context: LlamaContext, sequence: number): Promise<string> {
  let text = "";
  const pieces = context.generate({ sequence, temperature: 0, maxTokens: 8 });
  for await (const piece of pieces) text += piece;
  return text;
}

globalThis.addEventListener("unload", () => {
  for (const model of Object.values(models)) model[Symbol.dispose]();
});
