/**
 * Compactions that fail, and compactions while something else happens.
 *
 * @module
 */
import { chunkKv, ChunkKvError, type ChunkKvErrorCode, Kept, pyramidKv } from "chunkkv";
import { OutOfBlocksError, type PagedCompactOptions } from "chunkkv/paged";
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { assertSameBytes } from "../bytes.ts";
import {
  allBytes,
  bothLayers,
  fill,
  HEAD_DIM,
  makeCache,
  positionsOf,
  randomQueries,
  snapshot,
} from "./small_cache.ts";

/** Indices from 0 on: so many by its own words, and so many that it has room for. */
function rising(length: number, capacity: number): Kept {
  const kept = new Kept(1, 1, capacity);
  kept.data.forEach((_, i) => kept.data[i] = i);
  kept.lens[0] = length;
  return kept;
}

Deno.test("what fails changes nothing", async () => {
  using cache = makeCache({ numBlocks: 6 });
  using sequence = cache.createSequence();
  fill(cache, sequence, 22);
  const method = chunkKv({ window: 4, chunkSize: 1 });
  const queries = randomQueries(4, 2);
  const failures: [ChunkKvErrorCode, string, PagedCompactOptions][] = [
    ["out_of_memory", "2 available blocks but found 0", { kept: bothLayers(1, 3, 5, 7, 9) }],
    ["out_of_memory", "available", { queries, method, budget: 10 }],
    ["invalid_argument", "kept of 2 layers", { kept: bothLayers(1).slice(1) }],
    ["invalid_argument", "layer 1", { kept: [Kept.from([[[0, 4]]]), Kept.from([[[4, 4]]])] }],
    ["invalid_argument", "layer 1", { kept: [Kept.from([[[0, 4]]]), Kept.from([[[4, 22]]])] }],
    ["invalid_argument", "layer 0", { kept: bothLayers(-1, 2) }],
    ["invalid_argument", "1 set", { kept: bothLayers(1).map(() => Kept.from([[[1]], [[1]]])) }],
    ["invalid_argument", "1 set", { kept: bothLayers(1).map(() => Kept.from([[[1], [1]]])) }],
    ["invalid_argument", "9 kept indices of layer 1", { kept: [rising(9, 9), rising(9, 6)] }],
    ["unsupported", "2 tokens in layer 1", {
      kept: [...bothLayers(1, 3).slice(1), Kept.from([[[1]]])],
    }],
    ["invalid_argument", "queries of 2 layers", { queries: queries.slice(1), method, budget: 4 }],
    ["invalid_argument", "queries for chunkkv", { method, budget: 4 }],
    ["invalid_argument", "budget", { queries, method }],
    ["invalid_argument", "keep", { queries, method, keep: 2 }],
    ["invalid_argument", "window", { queries, method: chunkKv({ window: 5 }), budget: 9 }],
  ];
  const before = snapshot(cache, sequence), bytes = allBytes(cache);
  for (const [code, text, options] of failures) {
    const keepPrefix = code === "out_of_memory" || undefined;
    const error = assertThrows(
      () => sequence.compact({ ...options, keepPrefix }),
      ChunkKvError,
      text,
    );
    assertEquals(error.code, code);
    await assertRejects(
      () => sequence.compactAsync({ ...options, keepPrefix }),
      ChunkKvError,
      text,
    );
    assertEquals(snapshot(cache, sequence), before);
    assertSameBytes(allBytes(cache), bytes, text);
  }
  const slotMapping = [sequence.blocks[2]! * 4];
  const nan = new Float32Array(HEAD_DIM).fill(NaN);
  cache.write(1, { slotMapping, keys: nan, values: nan });
  const error = assertThrows(
    () => sequence.compact({ queries, method, budget: 8 }),
    ChunkKvError,
  );
  assertEquals(error.code, "numeric");
  assertEquals(snapshot(cache, sequence), before);
  const pyramid = () => sequence.compact({ queries, method: pyramidKv(), budget: 8 });
  assertEquals(assertThrows(pyramid, ChunkKvError, "pyramidkv").code, "unsupported");
  assertEquals(snapshot(cache, sequence), before);
  using empty = cache.createSequence();
  assertThrows(() => empty.compact({ kept: bothLayers() }), ChunkKvError, "tokens to compact");
});

Deno.test("what a compaction has found is not found by the next one", async () => {
  using cache = makeCache();
  using sequence = cache.createSequence();
  using other = cache.createSequence();
  fill(cache, sequence, 12);
  fill(cache, other, 12);
  const nan = new Float32Array(HEAD_DIM).fill(NaN);
  cache.write(0, { slotMapping: [sequence.blocks[0]! * 4], keys: nan, values: nan });
  // Layer 0 has NaN, which a GPU finds later than that layer 1 lacks a part of its window.
  const queries = [randomQueries(4, 2)[0]!, randomQueries(2, 2)[1]!];
  const method = chunkKv({ window: 4 });
  const kept = bothLayers(1, 5, 9);
  assertThrows(() => sequence.compact({ queries, method, budget: 8 }), ChunkKvError);
  assertEquals(other.compact({ kept }).after, 3);
  await assertRejects(() => sequence.compactAsync({ queries, method, budget: 8 }), ChunkKvError);
  assertEquals((await other.compactAsync({ kept: bothLayers(0, 2) })).after, 2);
  assertEquals(positionsOf(cache, other, 0), [1, 9]);
});

Deno.test("a compaction on another thread leaves the other sequences free", async () => {
  using cache = makeCache({ numBlocks: 32 });
  using sequence = cache.createSequence();
  fill(cache, sequence, 30);
  using other = sequence.fork();
  using third = sequence.fork();
  const kept = bothLayers(3, 10, 17, 24, 29);
  const running = sequence.compactAsync({ kept });
  const next = other.compactAsync({ kept }); // takes its turn

  for (
    const use of [
      () => sequence.append(1),
      () => sequence.fork(),
      () => sequence.compact({ kept }),
      () => third.compact({ kept }),
      () => other.commit(),
    ]
  ) assertEquals(assertThrows(use, ChunkKvError, "inside a compaction").code, "busy");
  fill(cache, third, 3); // copies the shared last block meanwhile
  await Promise.all([running, next]);
  assertEquals(positionsOf(cache, third, 1), Array.from({ length: 33 }, (_, i) => i));
  for (const one of [sequence, other]) {
    assertEquals(positionsOf(cache, one, 0), [3, 10, 17, 24, 29]);
    fill(cache, one, 1);
  }
});

Deno.test("disposing a sequence or the cache during a compaction waits for it", async () => {
  {
    using cache = makeCache({ prefixCaching: false });
    const sequence = cache.createSequence();
    fill(cache, sequence, 30);
    const running = sequence.compactAsync({ kept: bothLayers(0, 9, 29) });
    sequence[Symbol.dispose]();
    assertEquals(cache.stats.used, 8);
    assertEquals((await running).after, 3);
    assertEquals(cache.stats.free, 16);
  }
  // Before its turn, and when the first layer is under way to fresh blocks.
  for (const used of [8, 9]) {
    const cache = makeCache();
    const sequence = cache.createSequence();
    fill(cache, sequence, 30);
    const running = sequence.compactAsync({ kept: bothLayers(1, 9, 29) });
    while (cache.stats.used < used) await Promise.resolve();
    cache[Symbol.dispose]();
    assertEquals((await assertRejects(() => running, ChunkKvError)).code, "disposed");
    assertEquals(cache.stats.used, 8);
    sequence[Symbol.dispose]();
    assertEquals(cache.stats.used, 0);
  }
});

Deno.test("a copy-out needs no more blocks than it writes", () => {
  using cache = makeCache({ numBlocks: 9 });
  using sequence = cache.createSequence();
  fill(cache, sequence, 28);
  assertEquals(cache.stats.free, 2);
  const nine = bothLayers(1, 2, 3, 4, 5, 6, 7, 8, 9);
  const error = assertThrows(() => sequence.compact({ kept: nine }), OutOfBlocksError);
  assertEquals([error.needed, error.available], [3, 2]);
  assertEquals(sequence.compact({ kept: bothLayers(1, 2, 3, 4, 5, 6, 7, 8) }).blocksCopied, 2);
});
