/**
 * What caches, sequences and memory refuse.
 *
 * @module
 */
import { ChunkKvError, type ChunkKvErrorCode } from "chunkkv";
import type { PagedKvCacheOptions } from "chunkkv/paged";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { bytesOf, DEVICE, memoryOf } from "./device.ts";
import { bothLayers, fill, HEAD_DIM, makeCache } from "./small_cache.ts";

function assertCode(run: () => unknown, code: ChunkKvErrorCode, includes: string): void {
  const error = assertThrows(run, ChunkKvError, includes);
  assertEquals(error.code, code);
  assert(error.message.startsWith("Expected ") && error.message.includes(" but found "));
}

Deno.test("what is wrong is refused with what was expected", () => {
  using cache = makeCache();
  using sequence = cache.createSequence();
  const invalid = "invalid_argument";
  assertCode(() => sequence.append(-1), invalid, "tokens");
  assertCode(() => sequence.append(1.5), invalid, "tokens");
  assertCode(() => sequence.append(2 ** 31), invalid, "tokens");
  assertCode(() => sequence.append([1, -2]), invalid, "token id");
  assertCode(() => sequence.append([NaN]), invalid, "token id");
  assertCode(() => cache.createSequence({ prompt: [0.5] }), invalid, "token id");
  assertCode(() => cache.createSequence({ minNew: -1 }), invalid, "minNew");
  assertCode(() => sequence.keys(2), invalid, "layer to be 0 to 1");
  assertCode(() => cache.layer(-1), invalid, "layer");
  assertEquals(cache.stats.used, 0);
  const rows = new Float32Array(HEAD_DIM);
  const write = (slot: number, keys = rows) =>
    cache.write(0, { slotMapping: [slot], keys, values: rows });
  assertCode(() => write(64), invalid, "a slot");
  assertCode(() => write(-2), invalid, "a slot");
  assertCode(() => write(0, new Float32Array(3)), invalid, "32 bytes of keys");
  write(-1);
});

Deno.test("what is disposed is refused, and disposing twice is harmless", () => {
  const cache = makeCache();
  const sequence = cache.createSequence();
  const other = cache.createSequence();
  other.append(5);
  sequence.append(5);
  sequence[Symbol.dispose]();
  sequence[Symbol.dispose]();
  assert(sequence.isDisposed);
  assertEquals(cache.stats.used, 2);
  for (
    const use of [
      () => sequence.append(1),
      () => sequence.commit(),
      () => sequence.rollback(),
      () => sequence.fork(),
      () => sequence.blocks,
      () => sequence.keys(0),
      () => sequence.compact({ kept: [] }),
      () => cache.batch([sequence]),
    ]
  ) assertCode(use, "disposed", "PagedSequence");
  cache[Symbol.dispose]();
  cache[Symbol.dispose]();
  for (
    const use of [
      () => other.append(1),
      () => other.fork(),
      () => other.values(0),
      () => other.compact({ kept: [] }),
      () => cache.createSequence(),
      () => cache.batch([]),
      () => cache.layer(0),
    ]
  ) assertCode(use, "disposed", "PagedKvCache");
  other[Symbol.dispose]();
});

Deno.test("sizes and memory that do not fit are refused", () => {
  const blockBytes = 4 * HEAD_DIM * 4;
  const bytes = 16 * blockBytes;
  const of = (keys: number, values?: number, strideBlock?: number) => ({
    keys: memoryOf(keys),
    values: values === undefined ? undefined : memoryOf(values),
    strideBlock,
  });
  const twice = (one: ReturnType<typeof of>) => ({ memory: [one, one] });
  const wrong: [Partial<PagedKvCacheOptions>, string][] = [
    [{ numLayers: 0 }, "numLayers"],
    [{ numKvHeads: 1.5 }, "numKvHeads"],
    [{ blockSize: 0 }, "blockSize"],
    [{ numBlocks: 0 }, "numBlocks"],
    [{ numBlocks: 2 ** 30 }, "numBlocks"], // slots would not fit 32 bits
    [{ headDim: -8 }, "headDim"],
    [{ dtype: "q8_0" }, "headDim to be a positive multiple of 32"],
    [{ layout: "nwd" as "nhd" }, "layout"],
    [{ threads: -1 }, "threads"],
    [{ device: "gpu" as "cuda" }, "device to be one of cpu, cuda"],
    [{ deviceIndex: 7 }, DEVICE === "cpu" ? "deviceIndex" : "0 to 0 but found 7"],
    [{ deviceIndex: -1 }, "deviceIndex"],
    [{ memory: [] }, "memory of 2 layers"],
    [twice(of(bytes - 1, bytes)), `${bytes} bytes of keys in layer 0`],
    [twice(of(bytes, bytes - 1)), `${bytes} bytes of values in layer 0`],
    [{ memory: [of(bytes, bytes), of(bytes, 0)] }, "values in layer 1"],
    [twice(of(bytes)), "memory of values"],
    [twice(of(bytes, bytes, blockBytes - 1)), "strideBlock"],
    [twice(of(bytes, bytes, blockBytes + 1)), `${bytes + 15} bytes`],
    [{ layout: "fused", ...twice(of(2 * bytes, bytes)) }, "no memory of values"],
    [{ layout: "fused", ...twice(of(2 * bytes - 1)) }, "bytes of values in layer 0"],
    [{ layout: "fused", ...twice(of(2 * bytes, undefined, blockBytes)) }, "strideBlock"],
  ];
  for (const [options, text] of wrong) {
    assertCode(() => makeCache(options).layer(0), "invalid_argument", text);
  }
  makeCache(twice(of(bytes, bytes)))[Symbol.dispose]();
  const resizable = new Uint8Array(new ArrayBuffer(bytes, { maxByteLength: 2 * bytes }));
  const memory = [of(bytes, bytes), { keys: resizable, values: resizable }];
  const text = DEVICE === "cpu" ? "does not shrink" : "device to be cpu for a Uint8Array";
  assertCode(() => makeCache({ memory }), "invalid_argument", text);
});

Deno.test("memory that is taken away is found before a row moves", () => {
  const memory = [0, 1].map(() => ({
    keys: memoryOf(16 * 4 * HEAD_DIM * 4),
    values: memoryOf(16 * 4 * HEAD_DIM * 4),
  }));
  using cache = makeCache({ memory });
  using sequence = cache.createSequence();
  fill(cache, sequence, 9);
  const { values } = memory[1]!;
  if (values instanceof Uint8Array) structuredClone(values, { transfer: [values.buffer] });
  else values[Symbol.dispose]();
  const keys = bytesOf({ data: memory[0]!.keys }), before = keys.slice();
  const compact = () => sequence.compact({ kept: bothLayers(1, 5, 8), keepPrefix: false });
  if (DEVICE === "cpu") assertCode(compact, "invalid_argument", "bytes of values in layer 1");
  else assertCode(compact, "disposed", "DeviceBuffer");
  assertEquals(keys, before);
  assertEquals([sequence.length, sequence.blocks.length], [9, 3]);
});
