/**
 * The owner of a native context: its life, and blocking and nonblocking calls.
 *
 * @module
 */
import {
  chunkKv,
  ChunkKvError,
  Compressor,
  contiguousKv,
  full,
  h2o,
  type Isa,
  Kept,
  layerBudget,
  pyramidKv,
  queryView,
  snapKv,
  streamingLlm,
  usableIsas,
} from "chunkkv";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { assertSameBytes } from "../bytes.ts";
import { random } from "../random.ts";

// Opened here and not in a test: the library stays open for the life of the process.
const isas = usableIsas();

const SHAPE = { batch: 1, numKvHeads: 2, kvLen: 200, headDim: 64 };

function inputs(seed = 1, kvLen = SHAPE.kvLen) {
  const next = random(seed);
  const array = (length: number) => Float32Array.from({ length }, () => next() * 4 - 2);
  const shape = { ...SHAPE, kvLen };
  return {
    queries: queryView({ data: array(4 * 32 * 64), numQHeads: 4, window: 32, headDim: 64 }),
    keys: contiguousKv({ data: array(2 * kvLen * 64), ...shape }),
    values: contiguousKv({ data: array(2 * kvLen * 64), ...shape }),
  };
}

function floatsOf({ data }: { data: unknown }): Float32Array {
  assert(data instanceof Float32Array);
  return data;
}

function code(expected: ChunkKvError["code"], error: ChunkKvError): void {
  assertEquals(error.code, expected, error.message);
}

Deno.test("a Compressor says what it computes with", () => {
  for (const isa of isas) {
    using compressor = new Compressor({ isa, threads: 3 });
    assertEquals([compressor.isa, compressor.threads], [isa, 3]);
  }
  using best = new Compressor();
  assert(isas.includes(best.isa));
  assert(best.threads >= 1);
});

Deno.test("a Compressor refuses options out of their range", () => {
  code("invalid_argument", assertThrows(() => new Compressor({ threads: -1 }), ChunkKvError));
  code("invalid_argument", assertThrows(() => new Compressor({ threads: 0.5 }), ChunkKvError));
  code("invalid_argument", assertThrows(() => new Compressor({ threads: 1e9 }), ChunkKvError));
  code(
    "invalid_argument",
    assertThrows(() => new Compressor({ isa: "mmx" as Isa }), ChunkKvError, "best, serial"),
  );
  const foreign: Isa = Deno.build.arch === "aarch64" ? "avx2" : "neon";
  code("unsupported", assertThrows(() => new Compressor({ isa: foreign }), ChunkKvError, foreign));
});

Deno.test("a disposed Compressor stays disposed, and every use of it says so", async () => {
  const compressor = new Compressor({ threads: 1 });
  compressor[Symbol.dispose]();
  compressor[Symbol.dispose]();
  const { queries, keys } = inputs();
  const method = chunkKv();
  code("disposed", assertThrows(() => compressor.isa, ChunkKvError, "disposed"));
  code("disposed", assertThrows(() => compressor.unsafeHandle, ChunkKvError));
  code(
    "disposed",
    assertThrows(() => compressor.select({ queries, keys, method, budget: 64 }), ChunkKvError),
  );
  code(
    "disposed",
    await assertRejects(() => compressor.scoreAsync({ queries, keys, method }), ChunkKvError),
  );
});

Deno.test("one call at a time: a second one meanwhile is a busy error", async () => {
  using compressor = new Compressor({ threads: 1 });
  const { queries, keys } = inputs(1, 4000);
  const options = { queries, keys, method: chunkKv(), budget: 64 };
  const running = compressor.selectAsync(options);
  code("busy", assertThrows(() => compressor.select(options), ChunkKvError, "inside a call"));
  code("busy", await assertRejects(() => compressor.selectAsync(options), ChunkKvError));
  const kept = await running;
  assertEquals([...kept.at(0)], [...compressor.select(options).at(0)]);
});

Deno.test("a Compressor disposed inside a call finishes the call first", async () => {
  const { queries, keys } = inputs(1, 4000);
  let running;
  {
    using compressor = new Compressor({ threads: 2 });
    running = compressor.selectAsync({ queries, keys, method: chunkKv(), budget: 64 });
    compressor[Symbol.dispose]();
    code("disposed", assertThrows(() => compressor.threads, ChunkKvError));
  }
  assertEquals((await running).lens[0], 64);
});

Deno.test("after a failed call a Compressor works on, blocking and nonblocking", async () => {
  using compressor = new Compressor({ threads: 1 });
  const { queries, keys } = inputs();
  const method = chunkKv();
  const bad = { ...keys, strideHead: 2 ** 40 };
  const wrong = { queries, keys: bad, method, budget: 64 };
  code("out_of_bounds", assertThrows(() => compressor.select(wrong), ChunkKvError, "keys"));
  code("out_of_bounds", await assertRejects(() => compressor.selectAsync(wrong), ChunkKvError));
  assertEquals(compressor.select({ queries, keys, method, budget: 64 }).lens[0], 64);
});

Deno.test("Async methods return what the blocking ones return", async () => {
  using one = new Compressor({ threads: 1 });
  using two = new Compressor({ threads: 2 });
  const a = inputs(), b = inputs();
  for (const method of [chunkKv(), snapKv(), streamingLlm()]) {
    const options = { queries: a.queries, keys: a.keys, method, budget: 70 };
    const [first, second] = [one.select(options), await two.selectAsync(options)];
    assertEquals(second.indices, first.indices);
  }
  const method = chunkKv();
  const scores = one.score({ queries: a.queries, keys: a.keys, method });
  const scoresAsync = await two.scoreAsync({ queries: b.queries, keys: b.keys, method });
  assertEquals(scoresAsync.data, scores.data);
  assertEquals(await two.chunkScoresAsync({ scores, method }), one.chunkScores({ scores, method }));
  const kept = one.select({ scores, method, keep: 0.3 });
  one.compact({ keys: a.keys, values: a.values, kept });
  await two.compactAsync({ keys: b.keys, values: b.values, kept });
  assertSameBytes(floatsOf(b.keys), floatsOf(a.keys), "keys");
  assertSameBytes(floatsOf(b.values), floatsOf(a.values), "values");
});

Deno.test("compress() is select() and compact() of every layer", async () => {
  using compressor = new Compressor({ threads: 2 });
  const method = chunkKv({ reuse: 2 });
  const layers = [1, 2, 3].map((seed) => inputs(seed));
  const expected = [1, 2, 3].map((seed) => inputs(seed));
  const again = [1, 2, 3].map((seed) => inputs(seed));

  const kept = compressor.compress({ layers, method, keep: 0.25 });
  const leaders = [0, 0, 2];
  expected.forEach(({ keys, values }, layer) => {
    const { queries, keys: from } = inputs([1, 2, 3][leaders[layer]!]);
    const own = compressor.select({ queries, keys: from, method, keep: 0.25 });
    assertEquals(kept[layer]?.indices, own.indices, `kept of layer ${layer}`);
    compressor.compact({ keys, values, kept: own });
    assertSameBytes(floatsOf(layers[layer]!.keys), floatsOf(keys), `keys of layer ${layer}`);
    assertSameBytes(floatsOf(layers[layer]!.values), floatsOf(values), `values of layer ${layer}`);
  });

  const [first, second, third] = again;
  assert(first && second && third);
  await compressor.compressAsync({
    layers: [first, { keys: second.keys, values: second.values }, third],
    method,
    keep: 0.25,
  });
  again.forEach(({ values }, layer) =>
    assertSameBytes(floatsOf(values), floatsOf(layers[layer]!.values), `values of layer ${layer}`)
  );
  assertEquals(compressor.compress({ layers: [], method, keep: 0.25 }), []);
});

Deno.test("compress() of pyramidkv gives each layer, and each sequence, its own budget", () => {
  using compressor = new Compressor({ threads: 2 });
  const method = pyramidKv({ window: 8 });
  const kvLens = Int32Array.of(200, 90, 20);
  const layers = [1, 2, 3, 4].map((seed) => {
    const next = random(seed);
    const array = (length: number) => Float32Array.from({ length }, () => next() * 4 - 2);
    const shape = { ...SHAPE, batch: 3, kvLens };
    return {
      queries: queryView({
        data: array(3 * 4 * 8 * 64),
        batch: 3,
        numQHeads: 4,
        window: 8,
        headDim: 64,
      }),
      keys: contiguousKv({ data: array(3 * 2 * 200 * 64), ...shape }),
      values: contiguousKv({ data: array(3 * 2 * 200 * 64), ...shape }),
    };
  });
  const before = layers.map(({ keys, queries }) =>
    compressor.score({ queries, keys, method: snapKv({ window: 8 }) })
  );
  const keysBefore = floatsOf(layers[3]!.keys).slice();
  const kept = compressor.compress({ layers, method, budget: 60 });
  kvLens.forEach((tokens, b) => {
    const budgets = kept.map((_, layer) => layerBudget(method, 60, tokens, layer, 4));
    if (tokens > 60) assert(budgets[0]! > 80 && budgets[3]! < 40, `${budgets}`);
    kept.forEach((one, layer) => {
      assertEquals(one.lens[b], Math.min(tokens, budgets[layer]!));
      const scores = before[layer]!;
      const own = compressor.select({
        scores,
        method: snapKv({ window: 8 }),
        budget: budgets[layer]!,
      });
      for (const head of [0, 1]) assertEquals(one.at(b, head), own.at(b, head));
    });
  });
  const row = (data: Float32Array, token: number) => data.subarray(token * 64, (token + 1) * 64);
  kept[3]!.at(0, 0).forEach((token, i) =>
    assertSameBytes(row(floatsOf(layers[3]!.keys), i), row(keysBefore, token), `row ${i}`)
  );
});

Deno.test("compress() of h2o takes the queries of all tokens", () => {
  using compressor = new Compressor({ threads: 2 });
  const next = random(7);
  const data = Float32Array.from({ length: 4 * 200 * 64 }, () => next() * 4 - 2);
  const queries = queryView({ data, numQHeads: 4, window: 200, headDim: 64 });
  const { keys, values } = inputs();
  const scores = compressor.score({ queries, keys, method: h2o() });
  for (const head of [0, 1]) {
    const sum = scores.at(0, head).reduce((a, b) => a + b);
    assert(Math.abs(sum - 2 * 200) < 1e-3, `Expected 400 but found ${sum}`);
  }
  const expected = compressor.select({ scores, method: h2o(), budget: 50 });
  const [kept] = compressor.compress({
    layers: [{ queries, keys, values }],
    method: h2o(),
    budget: 50,
  });
  assertEquals(kept?.indices, expected.indices);
  for (const method of [chunkKv(), snapKv()]) {
    const run = () => compressor.score({ queries, keys: inputs().keys, method });
    code("invalid_argument", assertThrows(run, ChunkKvError, "queries.window to be 32"));
  }
});

Deno.test("full() and streamingLlm() need no queries, chunkKv() does", () => {
  using compressor = new Compressor({ threads: 1 });
  const { keys } = inputs();
  assertEquals(compressor.select({ keys, method: full() }).at(0).length, 200);
  const kept = compressor.select({ keys, method: streamingLlm({ sinks: 2 }), budget: 5 });
  assertEquals([...kept.at(0)], [0, 1, 197, 198, 199]);
  code(
    "invalid_argument",
    assertThrows(
      () => compressor.select({ keys, method: chunkKv(), budget: 50 }),
      ChunkKvError,
      "queries for chunkkv",
    ),
  );
  code(
    "invalid_argument",
    assertThrows(
      () => compressor.score({ queries: inputs().queries, keys, method: full() }),
      ChunkKvError,
      "a method that scores",
    ),
  );
});

Deno.test("compact() moves neither keys nor values if one of them does not fit", async () => {
  using compressor = new Compressor({ threads: 1 });
  const { keys, values } = inputs();
  const before = floatsOf(keys).slice();
  const kept = Kept.from([[[3, 50, 199]]]);
  const wrong = [
    { ...values, strideToken: -256 },
    { ...values, strideToken: 128 },
    { ...values, strideBatch: 2 ** 50, strideHead: 2 ** 50 },
    { ...values, kvLen: 100 },
    { ...values, batch: 2 },
    { ...values, numKvHeads: 1 },
  ];
  for (const view of wrong) {
    assertThrows(() => compressor.compact({ keys, values: view, kept }), ChunkKvError, "Expected");
    await assertRejects(() => compressor.compactAsync({ keys, values: view, kept }), ChunkKvError);
  }
  const to = { keys: inputs().keys, values: values };
  assertThrows(() => compressor.compact({ keys, values, kept, to }), ChunkKvError, "overlap");
  assertThrows(() => compressor.compact({ kept }), ChunkKvError, "keys or values");
  assertThrows(() => compressor.compact({ keys, kept, to: {} }), ChunkKvError, "to.keys");
  assertSameBytes(floatsOf(keys), before, "keys");
  assertSameBytes(floatsOf(to.keys), floatsOf(inputs().keys), "to.keys");
});

Deno.test("Compressors that are forgotten free their contexts", () => {
  // Each context owns 5 MB of scratch memory here: 150 of them leaked would be 750 MB.
  const code = `
    import { chunkKv, Compressor, Scores } from "chunkkv";
    const scores = new Scores(1, 1, 400_000);
    for (let i = 0; i < 150; i++) {
      new Compressor({ threads: 1 }).select({ scores, method: chunkKv({ chunkSize: 1 }), budget: 99 });
      if (i % 10 === 9) {
        (globalThis as unknown as { gc(): void }).gc();
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
    }
    console.log(Math.round(Deno.memoryUsage().rss / 2 ** 20));
  `;
  const folder = Deno.makeTempDirSync({ prefix: "chunkkv-gc-" });
  try {
    Deno.writeTextFileSync(`${folder}/main.ts`, code);
    const config = decodeURIComponent(new URL("../../deno.json", import.meta.url).pathname);
    const { stdout, stderr } = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--no-lock",
        "-A",
        "--v8-flags=--expose-gc",
        `--config=${config}`,
        `${folder}/main.ts`,
      ],
    }).outputSync();
    const megabytes = Number(new TextDecoder().decode(stdout));
    assert(
      megabytes > 0 && megabytes < 400,
      `${megabytes} MiB, ${new TextDecoder().decode(stderr)}`,
    );
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
