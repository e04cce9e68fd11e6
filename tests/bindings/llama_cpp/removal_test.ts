/**
 * What can be removed once layers have tokens of their own, and what a restored state knows.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type LlamaContext, LlamaModel } from "chunkkv/llama-cpp";

import { assertSameBits } from "./compare.ts";
import { prefilled, settings, throws, TOKENS } from "./expect_error.ts";
import { gemma3, smolLm2 } from "./models.ts";
import { storyTokens } from "./prompts.ts";

const model = await LlamaModel.load(smolLm2());
const LAYERS = 30;

const range = (from: number, length: number) => Array.from({ length }, (_, i) => from + i);

/** The first layer keeps other tokens than the rest; all keep the newest 8. */
function unlike(count = TOKENS): number[][] {
  const others = [...range(0, 12), ...range(count - 8, 8)];
  return [range(count - 20, 20), ...Array<number[]>(LAYERS - 1).fill(others)];
}

function refuses(context: LlamaContext, start: number, sequence = 0): void {
  const count = context.tokenCount(sequence);
  const state = context.saveState(sequence);
  for (
    const [from, to] of [[1], [start - 1], [0, count - 1], [5, 6], [start - 1, count]] as const
  ) {
    throws(() => context.remove(from, to, sequence), "unsupported", `positions from ${start} on`);
  }
  assertEquals(context.saveState(sequence), state);
}

Deno.test("after a compression only the newest tokens that all layers kept can be removed", async () => {
  using context = await prefilled(model);
  context.compact(unlike());
  refuses(context, TOKENS - 8);
  await context.prefill(storyTokens(model, 10, 30));
  refuses(context, TOKENS - 8);
  context.remove(TOKENS + 5);
  context.remove(TOKENS, TOKENS + 2);
  context.remove(TOKENS - 1);
  assertEquals([context.tokenCount(), context.cellCount()], [TOKENS - 1, 19]);
  context.remove(TOKENS - 8);
  assertEquals(context.cellCount(), 12);
  context.clear();
  await context.prefill(storyTokens(model, TOKENS));
  context.remove(20);
  assertEquals([context.tokenCount(), context.cellCount()], [20, 20]);
});

Deno.test("the window of a compression can be removed, what lies before cannot", async () => {
  using context = await prefilled(model);
  context.compress({ budget: 40, window: 16, chunkSize: 7 });
  throws(() => context.remove(10), "unsupported", "each layer keeps tokens of its own");
  context.remove(TOKENS - 16);
  assertEquals(context.cellCount(), 24);
});

Deno.test("keeping everything leaves every token removable", async () => {
  using context = await prefilled(model);
  context.compact(Array(LAYERS).fill(range(0, TOKENS)));
  context.remove(10, 20);
  context.remove(30);
  assertEquals(context.cellCount(), 20);
});

Deno.test("copies, shifted sequences and restored states remember the compression", async () => {
  using context = await prefilled(model, { sequences: 2 });
  context.compact(unlike());
  const state = context.saveState();
  context.copy(0, 1);
  refuses(context, TOKENS - 8, 1);
  context.clear(1);
  context.shift(5);
  refuses(context, TOKENS - 3);
  // A state does not tell which tokens layers share, but that some are gone.
  context.restoreState(state);
  refuses(context, TOKENS - 1);
  context.remove(TOKENS - 1);
});

Deno.test("tokens that some layers lack are not decoded again for their queries", async () => {
  using context = await prefilled(model);
  context.compact(unlike());
  const state = context.saveState();
  throws(
    () => context.compress({ budget: 10, window: 9, chunkSize: 1 }),
    "invalid_argument",
    "not all known and in all layers",
  );
  assertEquals(context.saveState(), state);
});

Deno.test("compressing again right behind a gap loses nothing", async () => {
  using context = await prefilled(model);
  context.compact(Array(LAYERS).fill([...range(0, 12), ...range(TOKENS - 16, 16)]));
  const { before, after } = context.compress({ budget: 20, window: 16, chunkSize: 2 });
  assertEquals([before, after, context.tokenCount()], [28, 20, TOKENS]);
});

Deno.test("a restored state of equal length forgets the other text's tokens and logits", async () => {
  using context = await prefilled(model);
  const [state, tokens] = [context.saveState(), storyTokens(model, TOKENS)];
  await context.prefill([5]);
  const logits = context.logits();
  context.clear();
  await context.prefill(storyTokens(model, TOKENS, 30));
  context.restoreState(state);
  throws(() => context.logits(), "invalid_argument", "no logits");
  throws(() => context.compress({ budget: 40 }), "invalid_argument", "not all known");
  context.restoreState(state, { tokens });
  assertEquals(context.compress({ budget: 40 }).after, 40);
  context.restoreState(state);
  await context.prefill([5]);
  assertSameBits(context.logits(), logits, "after the restored state");
});

const patched = (state: Uint8Array<ArrayBuffer>, ...words: [at: number, value: number][]) => {
  const copy = state.slice();
  for (const [at, value] of words) new DataView(copy.buffer).setUint32(at, value, true);
  return copy;
};

// Bytes of a state: magic 0, sequence 4, streams 8, cells 12, then 12 for each cell; then transposed,
// layers, and for each layer type, row bytes.
const LAYOUT = 16 + 12 * TOKENS;
const BAD_STATES: [string, (state: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>, string][] =
  [
    ["empty", () => new Uint8Array(), "too few"],
    ["only a header", (s) => s.slice(0, 12), "too few"],
    ["cut in its cells", (s) => s.slice(0, 100), "too few"],
    ["cut in its rows", (s) => s.slice(0, -5), "too few"],
    ["with bytes behind it", (s) => new Uint8Array([...s, 1, 2, 3]), "too many"],
    ["of garbage", (s) => patched(s, [0, 7]), "begins with af143cd8 but found 00000007"],
    ["of two streams", (s) => patched(s, [8, 2]), "streams from 1 to 1 but found 2"],
    ["of more cells than the context", (s) => patched(s, [12, 257]), "0 to 256 but found 257"],
    ["of fewer cells than rows", (s) => patched(s, [12, 59]), "Expected"],
    ["with a negative position", (s) => patched(s, [16, -5 >>> 0]), "found -5"],
    ["with the last position", (s) => patched(s, [16 + 36, 2 ** 31 - 1]), "found 2147483647"],
    ["with a position twice", (s) => patched(s, [16 + 12, 0]), "two at 0"],
    ["with a cell of two sequences", (s) => patched(s, [20, 2]), "found 2"],
    ["with transposed values", (s) => patched(s, [LAYOUT, 1]), "with flash attention"],
    ["of no layers", (s) => patched(s, [LAYOUT + 4, 0]), "layers from 1"],
    ["of another type", (s) => patched(s, [LAYOUT + 8, 8]), "found type 8"],
    ["with endless rows", (s) => patched(s, [LAYOUT + 16, 2 ** 31]), "too few"],
    ["with rows that wrap", (s) => patched(s, [LAYOUT + 12, 0], [LAYOUT + 16, 2 ** 30]), "too few"],
  ];

Deno.test("states that do not fit are refused, and the sequence stays", async (t) => {
  using context = await prefilled(model);
  const [state, logits] = [context.saveState(), context.logits()];
  for (const [what, make, expected] of BAD_STATES) {
    await t.step(what, () => {
      throws(() => context.restoreState(make(state)), "invalid_argument", expected);
      assertEquals(context.saveState(), state);
    });
  }
  assertSameBits(context.logits(), logits, "after the refusals");
  await t.step("what only the engine knows empties the sequence", async () => {
    // One layer of the thirty, whole in itself.
    const layers = patched(state, [LAYOUT + 4, 1]).slice(0, LAYOUT + 8 + 2 * (12 + 384 * TOKENS));
    throws(() => context.restoreState(layers), "engine", "empty now");
    assertEquals([context.tokenCount(), context.cellCount()], [0, 0]);
    context.clear();
    await context.prefill([5]);
  });
});

Deno.test("states with sliding windows and without flash attention go through, too", async (t) => {
  await t.step("without flash attention", async () => {
    using context = await prefilled(model, { flashAttention: false });
    const state = context.saveState();
    context.restoreState(state);
    assertEquals(context.saveState(), state);
    throws(() => context.restoreState(state.slice(0, -1)), "invalid_argument", "too few");
  });
  await t.step("with sliding windows", async () => {
    using gemma = await LlamaModel.load(gemma3());
    using context = gemma.createContext(settings);
    await context.prefill(storyTokens(gemma, 20));
    const state = context.saveState();
    context.restoreState(state);
    assertEquals(context.saveState(), state);
    throws(() => context.restoreState(state.slice(0, -1)), "invalid_argument", "too few");
    using plain = await prefilled(model);
    throws(() => plain.restoreState(state), "invalid_argument", "too many");
  });
});

globalThis.addEventListener("unload", () => model[Symbol.dispose]());
