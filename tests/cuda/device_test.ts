/**
 * Memory of a device and a Compressor on it, with a libchunkkv_cuda that computes on the CPU: results
 * are those of a Compressor without a device.
 *
 * @module
 */
import {
  chunkKv,
  ChunkKvError,
  Compressor,
  contiguousKv,
  describeDevice,
  DeviceBuffer,
  DeviceKept,
  DeviceScores,
  full,
  h2o,
  Kept,
  pagedKv,
  pyramidKv,
  queryView,
  snapKv,
} from "chunkkv";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { assertSameBytes } from "../bytes.ts";
import { random } from "../random.ts";

const KV_LEN = 200, HEADS = 2, DIM = 64, BLOCK = 16;

function inputs(seed = 1) {
  const next = random(seed);
  const array = (length: number) => Float32Array.from({ length }, () => next() * 4 - 2);
  return {
    queries: array(4 * 32 * DIM),
    keys: array(HEADS * KV_LEN * DIM),
    values: array(HEADS * KV_LEN * DIM),
  };
}

const SHAPE = { numKvHeads: HEADS, kvLen: KV_LEN, headDim: DIM };
const QUERY_SHAPE = { numQHeads: 4, window: 32, headDim: DIM };

function onHost(seed?: number) {
  const { queries, keys, values } = inputs(seed);
  return {
    queries: queryView({ data: queries, ...QUERY_SHAPE }),
    keys: contiguousKv({ data: keys, ...SHAPE }),
    values: contiguousKv({ data: values, ...SHAPE }),
  };
}

function onDevice(seed?: number) {
  const { queries, keys, values } = inputs(seed);
  const dtype = "f32" as const;
  const [keyData, valueData] = [DeviceBuffer.from(keys), DeviceBuffer.from(values)];
  return {
    queries: queryView({ data: DeviceBuffer.from(queries), dtype, ...QUERY_SHAPE }),
    keys: contiguousKv({ data: keyData, dtype, ...SHAPE }),
    values: contiguousKv({ data: valueData, dtype, ...SHAPE }),
    keyData,
    valueData,
  };
}

function floats(buffer: DeviceBuffer): Float32Array<ArrayBuffer> {
  return buffer.downloadInto(new Float32Array(buffer.byteLength / 4));
}

function code(expected: ChunkKvError["code"], error: ChunkKvError): void {
  assertEquals(error.code, expected, error.message);
}

Deno.test("describeDevice() tells name, memory and compute capability", () => {
  const text = describeDevice("cuda");
  for (const part of ["No GPU at all", "16.0 GiB", "compute capability 9.0", "CUDA 13.0"]) {
    assert(text.includes(part), text);
  }
  const error = assertThrows(() => describeDevice("cuda", 1), ChunkKvError, "0 to 0 but found 1");
  code("invalid_argument", error);
});

Deno.test("a DeviceBuffer holds what was uploaded", () => {
  using buffer = DeviceBuffer.from(Uint8Array.of(1, 2, 3, 4, 5));
  buffer.upload(Uint8Array.of(9, 8), 3);
  assertEquals([...buffer.download()], [1, 2, 3, 9, 8]);
  assertEquals([...buffer.downloadInto(new Uint8Array(2), 1)], [2, 3]);
  assertEquals(buffer.downloadInto(new Float32Array(0), 5).length, 0);
});

Deno.test("a DeviceBuffer refuses copies outside it, and sizes that are none", () => {
  using buffer = new DeviceBuffer(8);
  for (const offset of [1, -1, 0.5, 9, NaN]) {
    const error = assertThrows(() => buffer.upload(new Uint8Array(8), offset), ChunkKvError);
    code("out_of_bounds", error);
  }
  code("out_of_bounds", assertThrows(() => buffer.downloadInto(new Uint8Array(9)), ChunkKvError));
  for (const bytes of [-1, 0.5, NaN, 2 ** 60]) {
    code("invalid_argument", assertThrows(() => new DeviceBuffer(bytes), ChunkKvError));
  }
  code("out_of_memory", assertThrows(() => new DeviceBuffer(2 ** 50), ChunkKvError));
  code(
    "invalid_argument",
    assertThrows(() => new DeviceBuffer(8, { deviceIndex: 7 }), ChunkKvError),
  );
});

Deno.test("a DeviceBuffer copies others, and parts of itself", () => {
  using source = DeviceBuffer.from(Uint8Array.of(1, 2, 3, 4));
  using buffer = DeviceBuffer.from(new Uint8Array(8));
  buffer.copyFrom(source);
  buffer.copyFrom(source, 5, 2);
  assertEquals([...buffer.download()], [1, 2, 3, 4, 0, 3, 4, 0]);
  buffer.copyFrom(buffer, 6, 0, 2);
  buffer.copyFrom(source, 8, 4);
  assertEquals([...buffer.download()], [1, 2, 3, 4, 0, 3, 1, 2]);
  const wrong: [number, number, number?][] = [[5, 0], [0, 5], [0, 2, 3], [-1, 0], [0, 0, 0.5]];
  for (const range of wrong) {
    code("out_of_bounds", assertThrows(() => buffer.copyFrom(source, ...range), ChunkKvError));
  }
});

Deno.test("a disposed DeviceBuffer stays disposed, and every use of it says so", () => {
  const { keys, queries } = onDevice();
  assert(keys.data instanceof DeviceBuffer);
  const buffer = keys.data;
  buffer[Symbol.dispose]();
  buffer[Symbol.dispose]();
  using compressor = new Compressor({ device: "cuda" });
  const uses = [
    () => buffer.pointer,
    () => buffer.download(),
    () => buffer.upload(new Uint8Array(1)),
    () => buffer.copyFrom(queries.data as DeviceBuffer),
    () => compressor.score({ queries, keys, method: chunkKv() }),
  ];
  for (const use of uses) code("disposed", assertThrows(use, ChunkKvError, "DeviceBuffer"));
});

Deno.test("a DeviceBuffer disposed inside a call lives until the call has returned", async () => {
  using compressor = new Compressor({ device: "cuda" });
  const { queries, keys, keyData } = onDevice();
  const running = compressor.scoreAsync({ queries, keys, method: chunkKv() });
  keyData[Symbol.dispose]();
  code("disposed", assertThrows(() => keyData.pointer, ChunkKvError));
  using scores = await running;
  assertEquals(scores.download().data.length, KV_LEN);
});

Deno.test("h2o and pyramidkv are refused on a device", () => {
  using gpu = new Compressor({ device: "cuda" });
  const refused = [
    [h2o(), "h2o"],
    [pyramidKv(), "pyramidkv"],
  ] as const;
  for (const [method, words] of refused) {
    const device = onDevice();
    const run = () => gpu.score({ queries: device.queries, keys: device.keys, method });
    assertEquals(assertThrows(run, ChunkKvError, words).code, "unsupported");
  }
});

Deno.test("stages on a device give what they give on the CPU", async () => {
  using cpu = new Compressor({ threads: 1 });
  using gpu = new Compressor({ device: "cuda" });
  assertEquals([cpu.device, gpu.device], ["cpu", "cuda"]);
  for (const method of [chunkKv(), chunkKv({ spread: 7 }), snapKv()]) {
    const host = onHost(), device = onDevice();
    const want = cpu.score({ queries: host.queries, keys: host.keys, method });
    using scores = gpu.score({ queries: device.queries, keys: device.keys, method });
    assertEquals(scores.download().data, want.data);
    if (method.name === "chunkkv") {
      assertEquals(
        gpu.chunkScores({ scores, method }),
        cpu.chunkScores({ scores: want, method }),
      );
      assertEquals(
        gpu.chunkScores({ queries: device.queries, keys: device.keys, method }),
        cpu.chunkScores({ queries: host.queries, keys: host.keys, method }),
      );
    }
    const kept = cpu.select({ scores: want, method, keep: 0.3 });
    using chosen = gpu.select({ scores, method, keep: 0.3 });
    assertEquals(chosen.download().indices, kept.indices);
    using again = await gpu.selectAsync({ ...device, method, keep: 0.3 });
    assertEquals(again.download().indices, kept.indices);

    cpu.compact({ keys: host.keys, values: host.values, kept });
    await gpu.compactAsync({ keys: device.keys, values: device.values, kept: chosen });
    await gpu.finishAsync();
    assertSameBytes(floats(device.keyData), host.keys.data as Float32Array, "keys");
    assertSameBytes(floats(device.valueData), host.values.data as Float32Array, "values");
  }
});

Deno.test("compress() on a device keeps and moves what it does on the CPU", () => {
  using cpu = new Compressor({ threads: 1 });
  using gpu = new Compressor({ device: "cuda" });
  const method = chunkKv({ reuse: 2 });
  const [host, device] = [[1, 2, 3].map(onHost), [1, 2, 3].map(onDevice)];
  const want = cpu.compress({ layers: host, method, keep: 0.2 });
  const found = gpu.compress({ layers: device, method, keep: 0.2 });
  gpu.finish();
  found.forEach((kept, layer) => {
    assertEquals(kept.download().indices, want[layer]?.indices, `layer ${layer}`);
    const { keyData, valueData } = device[layer]!;
    assertSameBytes(floats(keyData), host[layer]!.keys.data as Float32Array, "keys");
    assertSameBytes(floats(valueData), host[layer]!.values.data as Float32Array, "values");
    kept[Symbol.dispose]();
  });
});

Deno.test("paged views take lengths and tables on the device", () => {
  using gpu = new Compressor({ device: "cuda" });
  const blocks = Math.ceil(KV_LEN / BLOCK), numBlocks = 2 * blocks;
  const table = Int32Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
  const lens = Int32Array.of(KV_LEN, 37);
  using data = DeviceBuffer.from(new Float32Array(numBlocks * BLOCK * HEADS * DIM).fill(0.5));
  using blockTable = DeviceBuffer.from(table);
  using kvLens = DeviceBuffer.from(lens);
  const sizes = { ...SHAPE, batch: 2, blockSize: BLOCK, numBlocks, dtype: "f32" as const };
  const keys = pagedKv({ ...sizes, data, blockTable, kvLens });
  assertEquals([keys.device, keys.maxBlocks], ["cuda", blocks]);
  using kept = gpu.select({ keys, method: full() });
  assertEquals([...kept.download().lens], [...lens]);
  using chosen = DeviceKept.from(Kept.from([[[0, 199]], [[1, 36]]]));
  gpu.compact({ keys, kept: chosen });
  gpu.finish();

  const here = [{ blockTable: table }, { kvLens: lens }];
  for (const wrong of here) {
    const view = pagedKv({ ...sizes, data, blockTable, kvLens, ...wrong });
    const error = assertThrows(
      () => gpu.compact({ keys: view, kept: chosen }),
      ChunkKvError,
      "on cuda, where the data is, but found",
    );
    code("invalid_argument", error);
  }
});

Deno.test("what lies elsewhere than the Compressor works is refused", () => {
  using cpu = new Compressor({ threads: 1 });
  using gpu = new Compressor({ device: "cuda" });
  const host = onHost(), device = onDevice(), method = chunkKv();
  code(
    "unsupported",
    assertThrows(() => cpu.score({ ...device, method }), ChunkKvError, "found it on CUDA"),
  );
  code(
    "unsupported",
    assertThrows(() => gpu.score({ ...host, method }), ChunkKvError, "found it on the CPU"),
  );
  const array = new Float32Array(HEADS * KV_LEN * DIM);
  assertThrows(
    () => contiguousKv({ data: array, device: "cuda", ...SHAPE }),
    ChunkKvError,
    "device to be cpu for a Float32Array",
  );
  assertThrows(
    () => contiguousKv({ data: device.keyData, dtype: "f32", device: "cpu", ...SHAPE }),
    ChunkKvError,
    "device to be cuda for a DeviceBuffer",
  );
});

Deno.test("finish() throws what the device has found, once, and no row has moved", async () => {
  using gpu = new Compressor({ device: "cuda" });
  const { queries, keys, values, keyData } = onDevice();
  keyData.upload(Float32Array.of(NaN), 4 * DIM);
  const before = keyData.download();
  using kept = gpu.select({ queries, keys, method: chunkKv(), budget: 64 });
  gpu.compact({ keys, values, kept });
  code("numeric", assertThrows(() => gpu.finish(), ChunkKvError, "NaN"));
  assertSameBytes(keyData.download(), before, "keys");
  await gpu.finishAsync();

  using outside = DeviceKept.from(Kept.from([[[3, KV_LEN]]]));
  gpu.compact({ keys, kept: outside });
  code("out_of_bounds", await assertRejects(() => gpu.finishAsync(), ChunkKvError));
  assertSameBytes(keyData.download(), before, "keys");
});

Deno.test("scores and indices on a device free their memory once, whoever asks", () => {
  const scores = new DeviceScores(1, 1, 10);
  scores[Symbol.dispose]();
  scores[Symbol.dispose]();
  code("disposed", assertThrows(() => scores.download(), ChunkKvError));
  const kept = new DeviceKept(1, 1, 10);
  kept[Symbol.dispose]();
  kept[Symbol.dispose]();
  code("disposed", assertThrows(() => kept.download(), ChunkKvError));
});

/** Device buffers that are disposed while `run` fails. */
function disposedBy(run: () => unknown): number {
  const original = DeviceBuffer.prototype[Symbol.dispose];
  let count = 0;
  DeviceBuffer.prototype[Symbol.dispose] = function () {
    count++;
    original.call(this);
  };
  try {
    assertThrows(run, ChunkKvError);
  } finally {
    DeviceBuffer.prototype[Symbol.dispose] = original;
  }
  return count;
}

Deno.test("results of a stage that fails do not stay on the device", () => {
  using compressor = new Compressor({ device: "cuda" });
  const { queries, keys } = onDevice();
  using short = new DeviceBuffer(4);
  const wrong = { ...queries, logSumExp: short };
  assertEquals(disposedBy(() => compressor.score({ queries: wrong, keys, method: chunkKv() })), 1);
  const options = { keys, method: chunkKv(), budget: 50 };
  assertEquals(disposedBy(() => compressor.select({ ...options, queries: wrong })), 1);
  const layers = [{ queries: wrong, keys }, { queries, keys }];
  assertEquals(disposedBy(() => compressor.compress({ ...options, layers })), 4);
  const { queries: good } = onDevice();
  using kept = compressor.select({ ...options, queries: good }) as DeviceKept;
  assertEquals(kept.download().capacity, 50);
});

Deno.test("memory of another device is refused", () => {
  using compressor = new Compressor({ device: "cuda" });
  const { queries, keys, keyData } = onDevice();
  Object.defineProperty(keyData, "deviceIndex", { value: 1 });
  const run = () => compressor.score({ queries, keys, method: chunkKv() });
  code("invalid_argument", assertThrows(run, ChunkKvError, "memory of device 0 but found 1"));
});
