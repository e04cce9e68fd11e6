import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ChunkKvError, LlamaModel } from "chunkkv/llama-cpp";

import {
  argmax,
  assertSameBits,
  largestDifference,
  randomIndices,
  randomNumbers,
} from "./compare.ts";
import { LOAD_OPTIONS, smolLm2, THREADS } from "./models.ts";
import { storyTokens } from "./prompts.ts";
import { inTokenOrder, keepRows, parseState } from "./state.ts";

const model = await LlamaModel.load(smolLm2(), LOAD_OPTIONS);
const LAYERS = 30;

/**
 * How far logits of around 20 may be off where only rounding differs. The engine rounds activations
 * to 8 bits before each product, so that the last bit of anything makes 0.4 to 1.0 here, compressed
 * or not; rows or positions of other tokens make 4 and more.
 */
const ROUNDING = 1.5;

Deno.test("positions go on after compression, and cells are counted apart", async () => {
  using context = model.createContext({ contextSize: 256, threads: THREADS });
  await context.prefill(storyTokens(model, 100));
  context.compress({ budget: 40 });
  await context.prefill(storyTokens(model, 10, 50));
  assertEquals([context.tokenCount(), context.cellCount()], [110, 50]);
  assertEquals(context.positions().slice(-11), Int32Array.from({ length: 11 }, (_, i) => 99 + i));
});

Deno.test("a compressed sequence has room for more than the context's size in all", async () => {
  using context = model.createContext({ contextSize: 256, threads: THREADS });
  assertEquals(context.contextSize, 256);
  await context.prefill(storyTokens(model, 200));
  const error = await assertRejects(
    () => context.prefill(storyTokens(model, 100, 50)),
    ChunkKvError,
    "free cells for 100 more tokens in the context's 256",
  );
  assertEquals(error.code, "engine");
  assertEquals([context.tokenCount(), context.cellCount()], [200, 200]);
  context.compress({ budget: 60 });
  await context.prefill(storyTokens(model, 100, 50));
  await context.prefill(storyTokens(model, 90, 90));
  assertEquals([context.tokenCount(), context.cellCount()], [390, 250]);
});

Deno.test("a second turn after compression continues where the first ended", async () => {
  const [first, second] = [storyTokens(model, 100), storyTokens(model, 30, 60)];
  using context = model.createContext({ contextSize: 256, threads: THREADS });
  await context.prefill(first);
  const state = context.saveState();
  const { kept } = context.compress({ budget: 60 });
  await context.prefill(second);
  const logits = context.logits();
  using other = model.createContext({ contextSize: 256, threads: THREADS });
  other.restoreState(keepRows(state, kept.map(({ indices }) => indices)));
  await other.prefill(second);
  assertSameBits(other.logits(), logits, "after the second turn");
});

Deno.test("compression turn after turn works on what the turns before have left", async () => {
  const random = randomNumbers(4);
  using context = model.createContext({ contextSize: 512, threads: THREADS });
  for (let turn = 0; turn < 3; turn++) {
    await context.prefill(storyTokens(model, 80, 20 * turn));
    for await (const _ of context.generate({ maxTokens: 6, temperature: 0 }));
    const before = context.cellCount();
    const report = context.compress({ keep: 0.5 });
    // Generated tokens have no captured queries: the window is computed again.
    assert(report.refreshMilliseconds > 0);
    assertEquals([report.before, report.after], [before, Math.floor(before / 2)]);
    const positions = context.positions();
    assertEquals(positions.at(-1), context.tokenCount() - 1);
    assertEquals(positions.slice(-32), Int32Array.from(positions.slice(-32)).sort());
  }
  // Positions have gaps now: rows and positions are still those of the tokens.
  const n = context.cellCount();
  const state = context.saveState();
  const layers = Array.from({ length: LAYERS }, () => randomIndices(n, 30, 3, random));
  context.compact(layers);
  // The newest token was decoded again to find the cells: its own row may round otherwise.
  const rebuilt = parseState(keepRows(state, layers.map((set) => [set])));
  const found = parseState(context.saveState());
  assertEquals(found.caches[0]?.positions, rebuilt.caches[0]?.positions);
  for (let l = 0; l < LAYERS; l++) {
    const rows = (side: "keys" | "values", of: typeof found) =>
      of.caches[0]?.[side][l]?.rows.slice(0, -1);
    assertEquals(rows("keys", found), rows("keys", rebuilt));
    assertEquals(rows("values", found), rows("values", rebuilt));
  }
});

Deno.test("compressing twice without a prompt in between keeps half of the half", async () => {
  using context = model.createContext({ contextSize: 256, threads: THREADS });
  await context.prefill(storyTokens(model, 120));
  context.compress({ keep: 0.5 });
  const { before, after } = context.compress({ budget: 40 });
  assertEquals([before, after], [60, 40]);
  assertEquals([context.tokenCount(), context.cellCount()], [120, 40]);
});

Deno.test("positions shift after compression as without it", async () => {
  const tokens = storyTokens(model, 100);
  const [next] = storyTokens(model, 1, 70);
  const shifted = async (compress: boolean, delta: number) => {
    using context = model.createContext({ contextSize: 256, threads: THREADS, kvType: "f32" });
    await context.prefill(tokens);
    if (compress) context.compress({ budget: 50 });
    context.shift(delta);
    assertEquals(context.tokenCount(), 100 + delta);
    assertEquals(context.positions().at(-1), 99 + delta);
    await context.prefill([next ?? 0]);
    return context.logits();
  };
  // RoPE is relative: a shift of the whole sequence changes nothing but rounding.
  for (const compress of [false, true]) {
    const [still, moved] = [await shifted(compress, 0), await shifted(compress, 40)];
    const off = largestDifference(still, moved);
    assert(
      off > 0 && off < ROUNDING,
      `Expected the same logits after a shift but found ${off} off, compressed: ${compress}`,
    );
    assertEquals(argmax(moved), argmax(still));
  }
});

Deno.test("a shifted sequence can be compressed: keys and queries follow first", async () => {
  using context = model.createContext({ contextSize: 256, threads: THREADS });
  await context.prefill(storyTokens(model, 100));
  context.shift(25);
  const { before, after } = context.compress({ budget: 50 });
  assertEquals([before, after, context.tokenCount()], [100, 50, 125]);
  assertThrows(() => context.shift(-124), ChunkKvError, "Expected a shift of at least");
});

Deno.test("sequences that interleave in the cache are compressed apart", async () => {
  const settings = { contextSize: 256, threads: THREADS, sequences: 3 };
  using context = model.createContext(settings);
  for (const turn of [0, 1]) {
    for (const sequence of [0, 1, 2]) {
      await context.prefill(storyTokens(model, 40, 20 * sequence + 60 * turn), { sequence });
    }
  }
  const states = [0, 1, 2].map((sequence) => context.saveState(sequence));
  const expected = [...states];
  for (const sequence of [1, 0]) {
    const { before, after, kept } = context.compress({ budget: 45, sequence });
    assertEquals([before, after], [80, 45]);
    expected[sequence] = keepRows(
      states[sequence] ?? new Uint8Array(),
      kept.map(({ indices }) => indices),
    );
    // The others are untouched, wherever their cells are.
    assertEquals([0, 1, 2].map((one) => context.saveState(one)), expected);
  }
  assertEquals([0, 1, 2].map((one) => context.cellCount(one)), [45, 45, 80]);
  // And each goes on like a context of its own that has this state. Its next token may get a cell
  // before the others, so attention adds up in another order.
  for (const sequence of [0, 1, 2]) {
    using alone = model.createContext(settings);
    alone.restoreState(expected[sequence] ?? new Uint8Array(), { sequence });
    await alone.prefill([7], { sequence });
    await context.prefill([7], { sequence });
    const off = largestDifference(context.logits(sequence), alone.logits(sequence));
    assert(off < ROUNDING, `Sequence ${sequence}: expected the same logits but found ${off} off`);
    assertEquals(argmax(context.logits(sequence)), argmax(alone.logits(sequence)));
  }
});

Deno.test("a sequence in cells that wrap around keeps the order of its tokens", async () => {
  using context = model.createContext({ contextSize: 256, threads: THREADS, sequences: 2 });
  await context.prefill(storyTokens(model, 100), { sequence: 0 });
  await context.prefill(storyTokens(model, 100, 30), { sequence: 1 });
  context.clear(0);
  // Its last tokens go to the cells that sequence 0 has left.
  await context.prefill(storyTokens(model, 80, 60), { sequence: 1 });
  const state = context.saveState(1);
  const cells = parseState(state).caches[0]?.positions ?? [];
  assert(cells.some((position, i) => position < (cells[i - 1] ?? 0)), "Expected cells to wrap");
  assertEquals(context.positions(1), Int32Array.from({ length: 180 }, (_, i) => i));
  const { kept } = context.compress({ budget: 70, sequence: 1 });
  assertEquals(
    inTokenOrder(context.saveState(1)),
    keepRows(inTokenOrder(state), kept.map(({ indices }) => indices)),
  );
  // Chosen as where cells are in order, but for rounding.
  using alone = model.createContext({ contextSize: 256, threads: THREADS });
  await alone.prefill(storyTokens(model, 100, 30));
  await alone.prefill(storyTokens(model, 80, 60));
  const shares = alone.compress({ budget: 70 }).kept.map(({ indices }, layer) =>
    new Set(indices[0]).intersection(new Set(kept[layer]?.indices[0])).size / 70
  );
  const mean = shares.reduce((a, b) => a + b) / LAYERS;
  assert(mean > 0.95, `Expected the same tokens but found ${mean} of them shared`);
});

Deno.test("sequences that share cells are refused until one is gone", async () => {
  using context = model.createContext({ contextSize: 256, threads: THREADS, sequences: 2 });
  await context.prefill(storyTokens(model, 80));
  context.copy(0, 1);
  assertEquals(context.logits(1), context.logits(0));
  const state = context.saveState();
  for (const sequence of [0, 1]) {
    const error = assertThrows(
      () => context.compress({ budget: 40, sequence }),
      ChunkKvError,
      "shares",
    );
    assertEquals(error.code, "unsupported");
  }
  assertEquals(context.saveState(), state);
  context.clear(0);
  assertEquals(context.compress({ budget: 40, sequence: 1 }).after, 40);
});

Deno.test("removing the end of a sequence takes its logits, and it can go on", async () => {
  using context = model.createContext({ contextSize: 256, threads: THREADS });
  const tokens = storyTokens(model, 90);
  await context.prefill(tokens);
  const logits = context.logits();
  context.remove(70);
  assertEquals([context.tokenCount(), context.cellCount()], [70, 70]);
  assertThrows(() => context.logits(), ChunkKvError, "no logits");
  assertEquals(context.compress({ budget: 50 }).before, 70);
  context.clear();
  assertEquals([context.tokenCount(), context.cellCount(), context.kvBytes()], [0, 0, 0]);
  await context.prefill(tokens);
  assertSameBits(context.logits(), logits, "after clearing");
});

globalThis.addEventListener("unload", () => model[Symbol.dispose]());
