/**
 * Attention added up over all queries, against the softmax of the engine's own queries and keys in
 * double precision.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  AccumulatedAttention,
  ChunkKvError,
  type LayerAttention,
  type LlamaContext,
  LlamaModel,
} from "chunkkv/llama-cpp";

import { selectHeavy } from "../../oracle.ts";
import { MaskedReference } from "./masked_reference.ts";
import { gemma3, smolLm2, THREADS } from "./models.ts";
import { storyTokens } from "./prompts.ts";

const model = await LlamaModel.load(smolLm2());
const settings = { contextSize: 512, threads: THREADS, accumulateAttention: true };
const [LAYERS, HEADS] = [30, 3];

/**
 * Largest relative error that one f32 score of the real model may have: exp(2 E) - 1 with
 * E = 2^-24 (2 * 64 + 8) S of `tests/tolerances.ts`, and S, the largest scale * sum |q_j k_j|, at most
 * 40 here.
 */
const TOLERANCE = 7e-4;

/** Sums of a reference that decodes the pieces one by one: `[layer][head][token]`. */
function referenceSums(pieces: readonly Int32Array[]) {
  using reference = new MaskedReference(model, smolLm2());
  return addUp(reference, pieces, 0, LAYERS, HEADS);
}

function addUp(
  reference: MaskedReference,
  pieces: readonly Int32Array[],
  before: number,
  layers: number,
  heads: number,
): Float64Array[][] {
  const count = before + pieces.reduce((sum, piece) => sum + piece.length, 0);
  const sums = Array.from(
    { length: layers },
    () => Array.from({ length: heads }, () => new Float64Array(count)),
  );
  let seen = before;
  for (const piece of pieces) {
    reference.decode(piece, piece.length);
    seen += piece.length;
    for (let layer = 0; layer < layers; layer++) {
      reference.attention(layer, seen, heads).forEach((more, head) =>
        more.forEach((value, token) => sums[layer]![head]![token]! += value)
      );
    }
  }
  return sums;
}

function assertSums(found: readonly LayerAttention[], expected: Float64Array[][]): void {
  assertEquals(found.map(({ layer }) => layer), expected.map((_, layer) => layer));
  let worst = 0;
  found.forEach(({ layer, sums }) => {
    assertEquals(sums.map(({ length }) => length), expected[layer]!.map(({ length }) => length));
    sums.forEach((row, head) =>
      row.forEach((value, token) => {
        const golden = expected[layer]![head]![token]!;
        worst = Math.max(worst, Math.abs(value - golden) / golden);
      })
    );
  });
  assert(worst < TOLERANCE, `Expected relative errors below ${TOLERANCE} but found ${worst}`);
}

function pieces(tokens: Int32Array<ArrayBuffer>, size: number): Int32Array[] {
  return Array.from(
    { length: Math.ceil(tokens.length / size) },
    (_, i) => tokens.subarray(i * size, (i + 1) * size),
  );
}

Deno.test("the attention of a whole prompt is that of its queries and keys in float64", async () => {
  const tokens = storyTokens(model, 150);
  using context = model.createContext(settings);
  await context.prefill(tokens);
  const { layers } = context.saveAttention();
  assertSums(layers, referenceSums([tokens]));
  // Each query gives out 1 in each of the 3 query heads of a kv head.
  for (const { sums } of layers) {
    for (const row of sums) assert(Math.abs(row.reduce((a, b) => a + b) - 450) < 1e-3);
  }
  const { kept } = context.compress({ method: "h2o", budget: 61 });
  kept.forEach(({ indices }, layer) =>
    indices.forEach((set, head) =>
      assertEquals([...set], selectHeavy(Float32Array.from(layers[layer]!.sums[head]!), 150, 61))
    )
  );
});

Deno.test("prompts in several batches and micro-batches add up the same", async () => {
  const tokens = storyTokens(model, 110);
  const expected = referenceSums(pieces(tokens, 40));
  for (const parts of [{ batchSize: 40 }, { batchSize: 80, microBatchSize: 40 }]) {
    using context = model.createContext({ ...settings, ...parts });
    await context.prefill(tokens.subarray(0, 80));
    await context.prefill(tokens.subarray(80));
    assertSums(context.saveAttention().layers, expected);
  }
});

Deno.test("each sequence of a cache adds up its own", async () => {
  const [a, b] = [storyTokens(model, 70), storyTokens(model, 50, 30)];
  using context = model.createContext({ ...settings, sequences: 3 });
  await context.prefill(a.subarray(0, 40), { sequence: 0 });
  await context.prefill(b.subarray(0, 20), { sequence: 1 });
  await context.prefill(a.subarray(40), { sequence: 0 });
  await context.prefill(b.subarray(20), { sequence: 1 });
  assertSums(context.saveAttention(0).layers, referenceSums([a.slice(0, 40), a.slice(40)]));
  assertSums(context.saveAttention(1).layers, referenceSums([b.slice(0, 20), b.slice(20)]));
  context.copy(1, 2);
  assertEquals(context.saveAttention(2).bytes, context.saveAttention(1).bytes);
});

for (const isFragmented of [false, true]) {
  const where = isFragmented ? "in cells out of order" : "in order";
  Deno.test(`after a compaction kept tokens, ${where}, keep what they have got and get more`, () =>
    goesOnAfterCompaction(isFragmented));
}

async function goesOnAfterCompaction(isFragmented: boolean) {
  const [first, next] = [storyTokens(model, 120), storyTokens(model, 30, 50)];
  using context = model.createContext({ ...settings, sequences: 2 });
  // What another sequence leaves behind makes the next cells lie before the kept ones.
  if (isFragmented) await context.prefill(storyTokens(model, 60, 20), { sequence: 1 });
  await context.prefill(first);
  const before = context.saveAttention().layers;
  const { kept } = context.compress({ method: "h2o", budget: 40 });
  context.clear(1);
  const after = context.saveAttention().layers;
  after.forEach(({ sums }, layer) =>
    sums.forEach((row, head) => {
      const set = kept[layer]!.indices[head]!;
      assertEquals([...row], [...set].map((token) => before[layer]!.sums[head]![token]!));
    })
  );
  // One by one, as the reference can mask heads.
  for (const token of next) await context.prefill([token]);
  using reference = new MaskedReference(model, smolLm2());
  reference.decode(first);
  for (const { layer, indices } of kept) reference.keepOnly(layer, indices, first.length);
  const more = addUp(reference, pieces(next, 1), first.length, LAYERS, HEADS);
  const expected = more.map((heads, layer) =>
    heads.map((row, head) => {
      const places = [...kept[layer]!.indices[head]!, ...next.map((_, i) => first.length + i)];
      return Float64Array.from(
        places,
        (token, place) => row[token]! + (after[layer]!.sums[head]![place] ?? 0),
      );
    })
  );
  // The engine's attention rounds by the order of the cells, and all layers but the first see that.
  const compared = isFragmented ? 1 : LAYERS;
  assertSums(context.saveAttention().layers.slice(0, compared), expected.slice(0, compared));
  assertEquals(context.compress({ method: "h2o", budget: 30 }).after, 30);
  // At once again: the newest token is decoded again for its cell, and counts once.
  const last = context.saveAttention().layers[0]!.sums[0]!;
  const again = context.compress({ method: "h2o", budget: 20 });
  assertEquals(again.after, 20);
  assertEquals(
    [...context.saveAttention().layers[0]!.sums[0]!],
    [...again.kept[0]!.indices[0]!].map((token) => last[token]!),
  );
}

Deno.test("generated tokens add up theirs", async () => {
  const tokens = storyTokens(model, 60);
  using context = model.createContext(settings);
  await context.prefill(tokens);
  const generated: number[] = [];
  for (let i = 0; i < 3; i++) {
    for await (const _ of context.generate({ maxTokens: 1, temperature: 0 }));
    generated.push(context.tokenCount());
  }
  const sums = context.saveAttention().layers[7]!.sums[1]!;
  assertEquals(sums.length, context.tokenCount());
  assert(sums.length > tokens.length);
  assert(Math.abs(sums.reduce((a, b) => a + b) - 3 * sums.length) < 1e-3);
  assert(context.compress({ method: "h2o", keep: 0.5 }).after === Math.floor(sums.length / 2));
});

Deno.test("a prompt that is stopped leaves no attention behind", async () => {
  const tokens = storyTokens(model, 100);
  using context = model.createContext({ ...settings, batchSize: 32 });
  await context.prefill(tokens.subarray(0, 40));
  const before = context.saveAttention().bytes;
  const controller = new AbortController();
  await assertRejects(() =>
    context.prefill(tokens.subarray(40), {
      signal: controller.signal,
      onProgress: ({ done }) => done >= 32 && controller.abort(),
    }), Error);
  assertEquals(context.tokenCount(), 40);
  assertEquals(context.saveAttention().bytes, before);
  await context.prefill(tokens.subarray(40));
  const parts = [...pieces(tokens.slice(0, 40), 32), ...pieces(tokens.slice(40), 32)];
  assertSums(context.saveAttention().layers, referenceSums(parts));
});

Deno.test("with its attention a restored state can be compressed, without it not", async () => {
  const tokens = storyTokens(model, 80);
  using context = model.createContext(settings);
  await context.prefill(tokens);
  const [state, attention] = [context.saveState(), context.saveAttention()];
  const { kept } = context.compress({ method: "h2o", keep: 0.4 });
  context.restoreState(state, { tokens, attention });
  assertEquals(context.saveAttention().bytes, attention.bytes);
  assertEquals(context.compress({ method: "h2o", keep: 0.4 }).kept, kept);

  context.restoreState(state, { tokens });
  refuses(context, "a restored state");
  assertEquals(context.cellCount(), 80);
  assertEquals(context.compress({ keep: 0.5 }).after, 40);
  for (const bytes of [attention.bytes.subarray(0, 90), new Uint8Array(40)]) {
    const wrong = Object.assign(Object.create(attention), { bytes: bytes.slice() });
    const run = () => context.restoreState(state, { tokens, attention: wrong });
    assertEquals(assertThrows(run, ChunkKvError, "attention gave").code, "invalid_argument");
  }
  context.clear();
  await context.prefill(tokens);
  assertEquals(context.compress({ method: "h2o", keep: 0.4 }).kept, kept);
});

function refuses(context: LlamaContext, text: string): void {
  const compress = () => context.compress({ method: "h2o", keep: 0.5 });
  assertEquals(assertThrows(compress, ChunkKvError, text).code, "invalid_argument");
  const save = () => context.saveAttention();
  assertEquals(assertThrows(save, ChunkKvError, text).code, "invalid_argument");
}

Deno.test("attention that is not known is refused, and the cache stays", async () => {
  const tokens = storyTokens(model, 60);
  using plain = model.createContext({ contextSize: 512, threads: THREADS });
  await plain.prefill(tokens);
  refuses(plain, "accumulate_attention");
  assertEquals(plain.compress({ keep: 0.5 }).after, 30);

  using context = model.createContext(settings);
  await context.prefill(tokens);
  context.remove(50);
  refuses(context, "newest tokens were removed");
  await context.prefill(tokens.subarray(50));
  refuses(context, "newest tokens were removed");
  context.remove(10, 20);
  context.clear();
  assertEquals(context.saveAttention().layers, []);
  await context.prefill(tokens);
  context.remove(10, 20);
  refuses(context, "tokens were removed");
});

Deno.test("a context that adds nothing up computes the same bits", async () => {
  const tokens = storyTokens(model, 90);
  const logits = [true, false].map(async (accumulateAttention) => {
    using context = model.createContext({ ...settings, accumulateAttention });
    await context.prefill(tokens);
    return context.logits();
  });
  assertEquals(await logits[0], await logits[1]);
});

Deno.test("of a model with sliding windows only the global layers count", async () => {
  using gemma = await LlamaModel.load(gemma3());
  using context = gemma.createContext({ ...settings, contextSize: 1024 });
  const tokens = storyTokens(gemma, 700); // more than the window of 512
  await context.prefill(tokens);
  const { layers } = context.saveAttention();
  const global = layers.map(({ layer }) => layer);
  assert(global.length >= 2 && global.length < gemma.info.numLayers / 2, `${global}`);
  const group = gemma.info.numQHeads / gemma.info.numKvHeads;
  for (const { sums } of layers) {
    for (const row of sums) {
      assertEquals(row.length, 700);
      assert(Math.abs(row.reduce((a, b) => a + b) - group * 700) < 0.01);
    }
  }
  const { kept, after } = context.compress({ method: "h2o", keep: 0.2 });
  assertEquals([kept.map(({ layer }) => layer), after], [global, 140]);
  await context.prefill([5]);
});

globalThis.addEventListener("unload", () => model[Symbol.dispose]());

Deno.test("attention of another number of heads is refused when it is used, and nothing breaks", async () => {
  const tokens = storyTokens(model, 64);
  const bytes = (layers: number, heads: number) => {
    const all = new DataView(new ArrayBuffer(16 + layers * (8 + 8 * heads * tokens.length)));
    all.setUint32(0, 0x41564b43, true);
    all.setInt32(4, tokens.length, true);
    all.setInt32(8, layers, true);
    for (let l = 0, at = 16; l < layers; l++, at += 8 + 8 * heads * tokens.length) {
      all.setInt32(at, l, true);
      all.setInt32(at + 4, heads, true);
    }
    return new Uint8Array(all.buffer);
  };
  for (const heads of [1, 4096]) {
    using context = model.createContext(settings);
    await context.prefill(tokens);
    const attention = new AccumulatedAttention(bytes(1, heads));
    context.restoreState(context.saveState(), { tokens, attention });
    await context.prefill(storyTokens(model, 3));
    assertThrows(() => context.compress({ method: "h2o", keep: 0.5 }), ChunkKvError, "heads");
    using other = model.createContext(settings);
    await other.prefill(tokens);
    other.restoreState(other.saveState(), { tokens, attention });
    assertEquals(other.compress({ keep: 0.5 }).after, 32); // which gathers attention, too
    assertThrows(() => other.saveAttention(), ChunkKvError, "heads");
  }
});
