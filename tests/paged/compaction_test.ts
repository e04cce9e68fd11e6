/**
 * Compaction of sequences: where rows go, and which blocks come back.
 *
 * @module
 */
import { chunkKv, Kept, snapKv, streamingLlm } from "chunkkv";
import type { PageLayout } from "chunkkv/paged";
import { assert, assertEquals } from "@std/assert";
import { assertSameBytes } from "../bytes.ts";
import { random } from "../random.ts";
import { floatsOf } from "./device.ts";
import {
  allBytes,
  bothLayers,
  fill,
  HEAD_DIM,
  LAYERS,
  makeCache,
  positionsOf,
  randomQueries,
  snapshot,
} from "./small_cache.ts";

Deno.test("own blocks are compacted in place, and the tail is free at once", () => {
  using cache = makeCache({ prefixCaching: false });
  using sequence = cache.createSequence();
  fill(cache, sequence, 22);
  const before = [...sequence.blocks];
  const kept = [[2, 3, 9, 20, 21], [0, 8, 19, 20, 21]].map((set) => Kept.from([[set]]));
  const report = sequence.compact({ kept });
  assertEquals({ ...report, kept: [] }, {
    before: 22,
    after: 5,
    blocksBefore: 6,
    blocksAfter: 2,
    blocksCopied: 0,
    kept: [],
  });
  assertEquals(sequence.blocks, before.slice(0, 2));
  assertEquals(cache.stats, { total: 16, free: 14, cached: 0, used: 2, shared: 0 });
  assertEquals(positionsOf(cache, sequence, 0), [2, 3, 9, 20, 21]);
  assertEquals(positionsOf(cache, sequence, 1), [0, 8, 19, 20, 21]);
  assertEquals([sequence.length, sequence.dropped, sequence.position], [5, 17, 22]);

  fill(cache, sequence, 2);
  assertEquals(positionsOf(cache, sequence, 1), [0, 8, 19, 20, 21, 22, 23]);
  sequence.compact({ kept: bothLayers(0, 5, 6) }); // turn after turn
  assertEquals(positionsOf(cache, sequence, 0), [2, 22, 23]);
});

Deno.test("shared and known blocks are not written: rows are copied out", () => {
  for (const shared of ["fork", "prefix"] as const) {
    using cache = makeCache({ prefixCaching: shared === "prefix" });
    using sequence = cache.createSequence();
    fill(cache, sequence, 18);
    using fork = shared === "fork" ? sequence.fork() : undefined;
    const held = [...sequence.blocks];
    const before = allBytes(cache);
    const report = sequence.compact({ kept: bothLayers(1, 5, 9, 13, 16, 17) });
    assertEquals([report.blocksAfter, report.blocksCopied], [2, 2]);
    assert(sequence.blocks.every((block) => !held.includes(block)));
    assertEquals(positionsOf(cache, sequence, 1), [1, 5, 9, 13, 16, 17]);
    if (fork) assertEquals(positionsOf(cache, fork, 0), Array.from({ length: 18 }, (_, i) => i));
    // No byte of what was there has changed.
    const after = allBytes(cache);
    const blockBytes = 4 * HEAD_DIM * 4;
    const pool = 16 * blockBytes;
    for (let part = 0; part < 2 * LAYERS; part++) {
      for (const block of held) {
        const at = part * pool + block * blockBytes;
        const was = before.subarray(at, at + blockBytes);
        assertSameBytes(after.subarray(at, at + blockBytes), was, `${shared}, block ${block}`);
      }
    }
    const { used, cached } = cache.stats;
    assertEquals([used, cached], shared === "fork" ? [7, 0] : [2, 4]);
  }
});

Deno.test("leading blocks of which all is kept stay where they are, shared or not", () => {
  using cache = makeCache();
  using sequence = cache.createSequence();
  fill(cache, sequence, 18);
  const [first, second] = sequence.blocks as [number, number];
  using other = cache.createSequence({ prompt: Array.from({ length: 9 }, (_, i) => i) });
  assertEquals(other.blocks, [first, second]);
  const kept = [[0, 1, 2, 3, 4, 9], [0, 1, 2, 3, 5, 17]].map((set) => Kept.from([[set]]));
  const report = sequence.compact({ kept });
  assertEquals([report.blocksAfter, report.blocksCopied], [2, 1]);
  assertEquals(sequence.blocks[0], first);
  assertEquals(cache.stats.shared, 1);
  assertEquals(positionsOf(cache, sequence, 1), [0, 1, 2, 3, 5, 17]);

  // The end alone dropped: nothing moves at all.
  const before = allBytes(cache);
  assertEquals(other.compact({ kept: bothLayers(0, 1, 2, 3, 4, 5) }).blocksCopied, 0);
  assertEquals(other.blocks, [first, second]);
  assertSameBytes(allBytes(cache), before, "the pool");
  fill(cache, other, 1); // and the cut block is copied when it is written
  assertEquals(positionsOf(cache, other, 0), [0, 1, 2, 3, 4, 5, 8]);
  using again = cache.createSequence({ prompt: Array.from({ length: 9 }, (_, i) => i) });
  assertEquals(positionsOf(cache, again, 0), [0, 1, 2, 3, 4, 5, 6, 7]);
});

Deno.test("keepPrefix: false forgets the prefix instead of copying", () => {
  using cache = makeCache();
  using sequence = cache.createSequence();
  fill(cache, sequence, 16);
  const kept = bothLayers(3, 7, 11, 15);
  using fork = sequence.fork();
  assertEquals(fork.compact({ kept, keepPrefix: false }).blocksCopied, 1); // shared all the same
  fork[Symbol.dispose]();
  const report = sequence.compact({ kept, keepPrefix: false });
  assertEquals([report.blocksAfter, report.blocksCopied], [1, 0]);
  assertEquals(positionsOf(cache, sequence, 0), [3, 7, 11, 15]);
  assertEquals(cache.stats, { total: 16, free: 15, cached: 0, used: 1, shared: 0 });
  using again = cache.createSequence({ prompt: Array.from({ length: 16 }, (_, i) => i) });
  assertEquals(again.prefixLength, 0);
});

Deno.test("every method of the library works on pages of every layout", () => {
  for (const layout of ["nhd", "hnd", "fused"] satisfies PageLayout[]) {
    for (
      const method of [chunkKv({ window: 4, reuse: 2 }), snapKv({ window: 4 }), streamingLlm()]
    ) {
      using cache = makeCache({ layout, numKvHeads: 2, numBlocks: 40 });
      using sequence = cache.createSequence();
      const { slotMapping } = sequence.append(100);
      const next = random(7);
      const rows = Float32Array.from({ length: 100 * 2 * HEAD_DIM }, () => next() - 0.5);
      for (const layer of [0, 1]) cache.write(layer, { slotMapping, keys: rows, values: rows });
      const report = sequence.compact({ method, keep: 0.3, queries: randomQueries(4, 3) });
      assertEquals([report.after, report.blocksAfter], [30, 8]);
      assertEquals(report.kept.map(({ lens }) => lens[0]), [30, 30]);
      assertEquals(cache.stats.free, 32);
    }
  }
});

Deno.test("fused rows that are too wide to move as one move as two", () => {
  for (const headDim of [512, 513, 1024]) {
    using cache = makeCache({ layout: "fused", headDim, prefixCaching: false });
    using sequence = cache.createSequence();
    const { slotMapping } = sequence.append(9);
    const keys = Float32Array.from({ length: 9 * headDim }, (_, i) => i);
    for (const layer of [0, 1]) {
      cache.write(layer, { slotMapping, keys, values: keys.map((value) => -value) });
    }
    using fork = sequence.fork();
    for (const one of [fork, sequence]) { // out, and then in place
      one.compact({ kept: bothLayers(2, 8) });
      const begin = one.blocks[0]! * 4 * 2 * headDim;
      const rows = floatsOf(cache.layer(1).keys).subarray(begin, begin + 4 * headDim);
      const expected = [2, 8].map((t) => keys.subarray(t * headDim, (t + 1) * headDim))
        .flatMap((row) => [...row, ...row.map((value) => -value)]);
      assertEquals([...rows], expected);
    }
  }
});

Deno.test("keeping everything changes nothing", () => {
  using cache = makeCache();
  using sequence = cache.createSequence();
  fill(cache, sequence, 10);
  const before = snapshot(cache, sequence);
  const report = sequence.compact({
    queries: randomQueries(4, 1),
    method: chunkKv({ window: 4 }),
    keep: 1,
  });
  assertEquals([report.after, report.blocksCopied], [10, 0]);
  assertEquals(snapshot(cache, sequence), before);
  fill(cache, sequence, 2); // and the sequence is still that of its tokens
  assertEquals(
    cache.createSequence({ prompt: Array.from({ length: 13 }, (_, i) => i) }).length,
    12,
  );
});
