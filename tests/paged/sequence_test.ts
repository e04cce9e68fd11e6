/**
 * Sequences: slots, forks and prefixes.
 *
 * @module
 */
import { Kept } from "chunkkv";
import {
  OutOfBlocksError,
  PagedKvCache,
  type PagedKvCacheOptions,
  type PagedSequence,
} from "chunkkv/paged";
import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { DEVICE, floatsOf } from "./device.ts";

function makeCache(options: Partial<PagedKvCacheOptions> = {}): PagedKvCache {
  const sizes = { numLayers: 2, numKvHeads: 1, headDim: 4, blockSize: 4, numBlocks: 12 };
  return new PagedKvCache({ ...sizes, dtype: "f32", threads: 1, device: DEVICE, ...options });
}

/** Appends tokens whose rows are all `value`. */
function fill(
  cache: PagedKvCache,
  sequence: PagedSequence,
  tokens: number[],
  value: number,
): Int32Array {
  const { slotMapping } = sequence.append(tokens);
  const rows = new Float32Array(tokens.length * 4).fill(value);
  for (let layer = 0; layer < cache.numLayers; layer++) {
    cache.write(layer, { slotMapping, keys: rows, values: rows });
  }
  return slotMapping;
}

/** The first element of the rows in some slots. */
function read(cache: PagedKvCache, slots: Iterable<number>, layer = 1): number[] {
  const numbers = floatsOf(cache.layer(layer).values);
  return Array.from(slots, (slot) => numbers[slot * 4]!);
}

function slotsOf({ blocks, length }: PagedSequence): number[] {
  return Array.from({ length }, (_, i) => blocks[Math.floor(i / 4)]! * 4 + i % 4);
}

function range(begin: number, end: number): number[] {
  return Array.from({ length: end - begin }, (_, i) => begin + i);
}

Deno.test("append() goes on in the last block, then in blocks wherever they are free", () => {
  using cache = makeCache({ prefixCaching: false });
  using first = cache.createSequence();
  using second = cache.createSequence();
  assertEquals([...first.append(3).slotMapping], [0, 1, 2]);
  assertEquals([...second.append(5).slotMapping], [4, 5, 6, 7, 8]);
  const { positions, slotMapping } = first.append(3);
  assertEquals([...positions], [3, 4, 5]);
  assertEquals([...slotMapping], [3, 12, 13]);
  assertEquals(first.blocks, [0, 3]);
  assertEquals([...second.append([]).slotMapping], []);
  assertEquals(cache.stats, { total: 12, free: 8, cached: 0, used: 4, shared: 0 });
  const batch = cache.batch([first, second]);
  assertEquals([batch.batch, batch.maxBlocks, batch.kvLen], [2, 2, 6]);
  assertEquals([...batch.blockTable], [0, 3, 1, 2]);
  assertEquals([...batch.kvLens], [6, 5]);
});

Deno.test("a fork copies the last block when it is written, and only then", () => {
  using cache = makeCache();
  using sequence = cache.createSequence();
  const slots = fill(cache, sequence, range(0, 6), 1);
  using fork = sequence.fork();
  assertEquals(fork.blocks, sequence.blocks);
  assertEquals([cache.stats.used, cache.stats.shared], [2, 2]);

  fill(cache, fork, [6], 2);
  assertEquals(fork.blocks[0], sequence.blocks[0]);
  assertNotEquals(fork.blocks[1], sequence.blocks[1]);
  for (const layer of [0, 1]) {
    assertEquals(read(cache, slots, layer), new Array(6).fill(1));
    assertEquals(read(cache, slotsOf(fork), layer), [1, 1, 1, 1, 1, 1, 2]);
  }
  const own = [...sequence.blocks];
  fill(cache, sequence, [7], 3); // its block is its own again
  assertEquals(sequence.blocks, own);
  assertEquals(read(cache, slotsOf(fork)), [1, 1, 1, 1, 1, 1, 2]);
});

Deno.test("a fork of full blocks shares them for good", () => {
  using cache = makeCache();
  using sequence = cache.createSequence();
  fill(cache, sequence, range(0, 8), 1);
  using fork = sequence.fork();
  fill(cache, fork, [8], 2);
  assertEquals(fork.blocks.slice(0, 2), sequence.blocks);
  assertEquals(cache.stats.shared, 2);
});

Deno.test("without room for the copy of a shared block nothing changes", () => {
  using cache = makeCache({ numBlocks: 1 });
  using sequence = cache.createSequence();
  fill(cache, sequence, [1, 2], 1);
  using fork = sequence.fork();
  const error = assertThrows(() => fork.append([3]), OutOfBlocksError, "1 available");
  assertEquals([error.code, error.needed, error.available], ["out_of_memory", 1, 0]);
  assertEquals([fork.length, fork.blocks], [2, sequence.blocks]);
  sequence[Symbol.dispose]();
  fork.append([3]);
});

Deno.test("a prompt begins with the full blocks that are known, and no others", () => {
  using cache = makeCache();
  const prompt = range(100, 110);
  {
    using sequence = cache.createSequence({ prompt });
    assertEquals(sequence.prefixLength, 0);
    fill(cache, sequence, prompt, 5);
    sequence.commit();
    // While its sequence lives, and with others' tokens after the first block.
    using other = cache.createSequence({ prompt: [...prompt.slice(0, 4), 1, 2, 3, 4, 5] });
    assertEquals(other.blocks, [sequence.blocks[0]!]);
    assertEquals(cache.stats.shared, 1);
  }
  assertEquals(cache.stats, { total: 12, free: 10, cached: 2, used: 0, shared: 0 });
  const hit = (options: { prompt: number[]; minNew?: number; salt?: string }) => {
    using sequence = cache.createSequence(options);
    assertEquals(sequence.prefixLength, sequence.length);
    assertEquals(read(cache, slotsOf(sequence)), new Array(sequence.length).fill(5));
    return sequence.prefixLength;
  };
  assertEquals(hit({ prompt }), 8);
  assertEquals(hit({ prompt: prompt.slice(0, 8) }), 4); // one token is always computed
  assertEquals(hit({ prompt: prompt.slice(0, 8), minNew: 0 }), 8);
  assertEquals(hit({ prompt, minNew: 3 }), 4);
  assertEquals(hit({ prompt, minNew: 100 }), 0);
  assertEquals(hit({ prompt, salt: "adapter" }), 0);
  assertEquals(hit({ prompt: [0, ...prompt.slice(1)] }), 0);
  assertEquals(hit({ prompt: prompt.slice(4) }), 0); // not behind the same tokens
  cache.forgetPrefixes();
  assertEquals(hit({ prompt }), 0);
  assertEquals(cache.stats.free, 12);
});

Deno.test("a prefix grows over several sequences and decoded tokens", () => {
  using cache = makeCache();
  const tokens = range(0, 14);
  for (const [until, known] of [[6, 0], [11, 4], [14, 8]] as const) {
    using sequence = cache.createSequence({ prompt: tokens.slice(0, until) });
    assertEquals(sequence.prefixLength, known);
    for (const token of tokens.slice(known, until)) fill(cache, sequence, [token], token);
    sequence.commit();
    assertEquals(read(cache, slotsOf(sequence)), tokens.slice(0, until));
  }
});

Deno.test("rows that were not written are found by nobody", () => {
  using cache = makeCache();
  const prompt = range(0, 9);
  {
    using failed = cache.createSequence({ prompt });
    failed.append(prompt);
    using _same = cache.createSequence({ prompt });
    assertEquals(_same.prefixLength, 0);
  }
  assertEquals(cache.stats.free, 12);
  {
    using sequence = cache.createSequence({ prompt });
    fill(cache, sequence, prompt.slice(0, 3), 1);
    sequence.commit();
    sequence.append(prompt.slice(3));
    sequence.rollback();
    assertEquals([sequence.length, sequence.position, sequence.blocks.length], [3, 3, 1]);
    assertEquals(cache.stats.free, 11);
    fill(cache, sequence, [50, 51], 1); // other tokens than those taken back
    sequence.commit();
  }
  using stale = cache.createSequence({ prompt });
  assertEquals(stale.prefixLength, 0);
  using known = cache.createSequence({ prompt: [0, 1, 2, 50, 51] });
  assertEquals(known.prefixLength, 4);
});

Deno.test("blocks of tokens that the cache was not told are found by nobody", () => {
  using cache = makeCache();
  {
    using sequence = cache.createSequence();
    fill(cache, sequence, range(0, 4), 1);
    sequence.append(4);
    fill(cache, sequence, range(8, 12), 1);
    sequence.commit();
  }
  assertEquals(cache.stats.cached, 1);
});

Deno.test("when room is needed, the prefix unused for longest goes, its end first", () => {
  using cache = makeCache({ numBlocks: 6 });
  const prompts = [range(0, 9), range(20, 29)];
  for (const prompt of prompts) {
    using sequence = cache.createSequence({ prompt });
    fill(cache, sequence, prompt, 1);
    sequence.commit();
  }
  assertEquals(cache.stats, { total: 6, free: 2, cached: 4, used: 0, shared: 0 });
  const known = () =>
    prompts.map((prompt) => {
      using sequence = cache.createSequence({ prompt });
      return sequence.prefixLength;
    });
  assertEquals(known(), [8, 8]);
  {
    using large = cache.createSequence();
    large.append(3 * 4); // two free blocks and one more
    assertEquals(known(), [4, 8]);
  }
  {
    using large = cache.createSequence();
    large.append(5 * 4);
  }
  assertEquals(known(), [0, 4]);
});

Deno.test("after a compaction nothing new is found, but what was known still is", () => {
  using cache = makeCache();
  const prompt = range(0, 9);
  using sequence = cache.createSequence({ prompt });
  fill(cache, sequence, prompt, 1);
  sequence.commit();
  const kept = Kept.from([[[1, 3, 8]]]);
  assertEquals(sequence.compact({ kept: [kept, kept] }).blocksCopied, 1);
  assertEquals(cache.stats.cached, 2);
  fill(cache, sequence, range(9, 18), 2);
  sequence.commit();
  assertEquals(cache.stats.cached, 2);
  using again = cache.createSequence({ prompt: range(0, 18) });
  assertEquals(again.prefixLength, 8);
  assertEquals([sequence.length, sequence.dropped, sequence.position], [12, 6, 18]);
});

Deno.test("what sequences had when prefixes were forgotten is found no more, nor what they add", () => {
  using cache = new PagedKvCache({
    numLayers: 1,
    numKvHeads: 1,
    headDim: 8,
    blockSize: 4,
    numBlocks: 32,
  });
  using live = cache.createSequence();
  live.append([1, 2, 3, 4, 5, 6, 7, 8]);
  live.commit();
  using early = cache.createSequence();
  early.append([21, 22, 23, 24]); // committed after its weights are gone
  using child = live.fork();
  cache.forgetPrefixes();
  early.commit();
  for (const sequence of [live, child]) {
    sequence.append([9, 10, 11, 12]);
    sequence.commit();
  }
  using anew = cache.createSequence({ prompt: [1, 2, 3, 4, 5, 6, 7, 8, 0] });
  assertEquals(anew.prefixLength, 0);
  anew.append([1, 2, 3, 4, 5, 6, 7, 8]);
  anew.commit();
  const prefixOf = (prompt: number[]) => {
    using sequence = cache.createSequence({ prompt });
    return sequence.prefixLength;
  };
  assertEquals(prefixOf([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]), 8);
  assertEquals(prefixOf([21, 22, 23, 24, 25]), 0);
});
