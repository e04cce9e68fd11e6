/**
 * The block pool against lists that say the same in the simplest way.
 *
 * @module
 */
import { ChunkKvError } from "chunkkv";
import { BlockPool, OutOfBlocksError } from "chunkkv/paged";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { BlockTable } from "../../bindings/paged/block_table.ts";
import fc from "fast-check";
import { random } from "../random.ts";

const STEPS = 400;

/** Holders as a list of block lists; cached blocks oldest first. */
class Model {
  readonly holders: number[][] = [];
  readonly hashes = new Map<number, string>();
  readonly cached: number[] = [];

  constructor(readonly total: number) {}

  refs(block: number): number {
    return this.holders.flat().filter((one) => one === block).length;
  }

  get used(): number[] {
    return [...new Set(this.holders.flat())];
  }

  get stats() {
    const used = this.used.length;
    const shared = this.used.filter((block) => this.refs(block) > 1).length;
    const cached = this.cached.length;
    return { total: this.total, free: this.total - used - cached, cached, used, shared };
  }

  allocated(blocks: number[]): void {
    const { free } = this.stats;
    const evicted = this.cached.splice(0, Math.max(0, blocks.length - free));
    for (const block of evicted) {
      assert(blocks.includes(block), `Expected ${block}, unused for longest, to be evicted`);
      this.hashes.delete(block);
    }
    for (const block of blocks) {
      assertEquals(this.refs(block), 0, `block ${block} was held`);
      assert(!this.hashes.has(block), `block ${block} was cached, and others had to go first`);
    }
    assertEquals(new Set(blocks).size, blocks.length, "a block came twice");
    this.holders.push(blocks);
  }

  released(index: number): void {
    const [blocks] = this.holders.splice(index, 1);
    for (const block of blocks!.toReversed()) {
      if (this.refs(block) === 0 && this.hashes.has(block)) this.cached.push(block);
    }
  }

  retained(blocks: number[]): void {
    for (const block of blocks) {
      const at = this.cached.indexOf(block);
      if (at >= 0) this.cached.splice(at, 1);
    }
    this.holders.push(blocks);
  }

  forgotten(block: number): void {
    this.hashes.delete(block);
    const at = this.cached.indexOf(block);
    if (at >= 0) this.cached.splice(at, 1);
  }
}

function step(pool: BlockPool, model: Model, next: () => number, name: () => string): void {
  const pick = <T>(list: readonly T[]): T | undefined => list[Math.floor(next() * list.length)];
  const holder = pick([...model.holders.keys()]);
  const action = next();
  if (action < 0.35) {
    const count = Math.floor(next() * 5);
    if (count > pool.available) {
      const error = assertThrows(() => pool.allocate(count), OutOfBlocksError);
      assertEquals([error.needed, error.available], [count, pool.available]);
    } else model.allocated(pool.allocate(count));
  } else if (action < 0.6 && holder !== undefined) {
    pool.release(model.holders[holder]!);
    model.released(holder);
  } else if (action < 0.75) {
    const found = [...model.hashes.keys(), ...model.used].filter(() => next() < 0.3);
    const blocks = [...new Set(found)];
    pool.retain(blocks);
    model.retained(blocks);
  } else if (action < 0.95) {
    const block = pick(model.used);
    if (block === undefined) return;
    const hash = next() < 0.3 ? pick([...model.hashes.values()]) ?? name() : name();
    const isNew = !model.hashes.has(block) && ![...model.hashes.values()].includes(hash);
    assertEquals(pool.remember(block, hash), isNew);
    if (isNew) model.hashes.set(block, hash);
  } else if (action < 0.99) {
    const block = pick([...model.hashes.keys()]);
    if (block === undefined) return;
    pool.forget([block]);
    model.forgotten(block);
  } else {
    pool.forgetAll();
    for (const block of [...model.hashes.keys()]) model.forgotten(block);
  }
}

Deno.test("BlockPool agrees with plain lists over random schedules", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 12 }), fc.integer(), (total, seed) => {
      const next = random(seed);
      const pool = new BlockPool(total);
      const model = new Model(total);
      let names = 0;
      for (let i = 0; i < STEPS; i++) {
        step(pool, model, next, () => `hash ${names++}`);
        assertEquals(pool.stats, model.stats);
        for (let block = 0; block < total; block++) {
          const refs = model.refs(block);
          assertEquals(pool.refCount(block), refs);
          assertEquals(pool.isWritable(block), refs === 1 && !model.hashes.has(block));
        }
        for (const [block, hash] of model.hashes) assertEquals(pool.find(hash), block);
      }
      while (model.holders.length > 0) {
        pool.release(model.holders[0]!);
        model.released(0);
      }
      assertEquals(pool.stats, model.stats);
      assertEquals(pool.available, total);
    }),
    { numRuns: 40 },
  );
});

Deno.test("BlockPool evicts the end of a prefix before its beginning", () => {
  const pool = new BlockPool(3);
  const blocks = pool.allocate(3);
  blocks.forEach((block, i) => pool.remember(block, `${i}`));
  pool.release(blocks);
  pool.allocate(1);
  assertEquals([0, 1, 2].map((i) => pool.find(`${i}`)), [blocks[0], blocks[1], undefined]);
});

Deno.test("BlockPool refuses what would break its counts", () => {
  const pool = new BlockPool(2);
  const blocks = pool.allocate(1);
  pool.release(blocks);
  for (
    const broken of [
      () => pool.release(blocks),
      () => pool.retain(blocks),
      () => pool.remember(blocks[0]!, "a hash"),
      () => pool.release([2]),
      () => pool.retain([-1]),
    ]
  ) assertEquals(assertThrows(broken, ChunkKvError, "Expected ").code, "internal");
  assertEquals(pool.stats, { total: 2, free: 2, cached: 0, used: 0, shared: 0 });
  for (const count of [0, -1, 1.5, NaN]) {
    assertThrows(() => new BlockPool(count), ChunkKvError, "numBlocks");
  }
});

Deno.test("a block table takes more blocks than a call has room for arguments", () => {
  const table = new BlockTable(16, [3, 5]);
  const blocks = Array.from({ length: 300_000 }, (_, i) => i);
  assertEquals(table.replaceFrom(1, blocks), [5]);
  assertEquals([table.blocks.length, table.blocks[0], table.blocks.at(-1)], [300_001, 3, 299_999]);
});
