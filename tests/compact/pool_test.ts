/**
 * Copies from blocks of a pool to other blocks of the same pool: what is let through, and what not.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { native, readText } from "../../ffi/library.ts";
import { STATUS } from "../../ffi/status.ts";
import { assertSameBytes } from "../bytes.ts";
import {
  address,
  BLOCK,
  type Fixture,
  HEADS,
  makeFixture,
  pack,
  ROW,
  type Values,
  withContext,
} from "./hostile_fixture.ts";

/** Ten blocks of four tokens; sequences of 7 and 5 tokens begin with the same block. */
const SOURCE = [2, 5, 2, 9];
const TARGET = [0, 7];
const KEPT = Int32Array.of(0, 3, 6, 0, 2, 3);

/** Moves rows inside the pool of keys, with fields of either side overridden. */
function copyOut(
  context: Deno.PointerObject,
  fixture: Fixture,
  from: Values,
  to: Values,
): number {
  const arrays = {
    source: Int32Array.from(SOURCE),
    target: Int32Array.from(TARGET),
    sourceLens: Int32Array.of(7, 5),
    targetLens: Int32Array.of(3, 3),
  };
  fixture.held.push(...Object.values(arrays), KEPT);
  const keys: Values = {
    ...fixture.structs.keys,
    ...fixture.paged,
    block_table: address(arrays.source),
    max_blocks: 2,
    kv_len: 7,
    kv_lens: address(arrays.sourceLens),
    ...from,
  };
  const target: Values = {
    ...keys,
    block_table: address(arrays.target),
    max_blocks: 1,
    kv_len: 3,
    kv_lens: address(arrays.targetLens),
    ...to,
  };
  return native().ckv_compact(
    context,
    pack(fixture, "keys", keys),
    pack(fixture, "to", target),
    pack(fixture, "kept", { indices: address(KEPT) }),
  );
}

function withPool(body: (context: Deno.PointerObject, fixture: Fixture) => void): void {
  withContext("best", (context) => body(context, makeFixture()));
}

Deno.test("blocks of a pool are copied to other blocks of it, shared ones too", () => {
  withPool((context, fixture) => {
    const { keys } = fixture.memory;
    const expected = keys.slice();
    const rowOf = (block: number, token: number) =>
      (block * BLOCK * HEADS + token * HEADS) * (ROW / 4);
    const move = (from: [number, number], to: [number, number]) => {
      const begin = rowOf(...from);
      expected.set(keys.slice(begin, begin + HEADS * ROW / 4), rowOf(...to));
    };
    move([2, 0], [0, 0]);
    move([2, 3], [0, 1]);
    move([5, 2], [0, 2]);
    move([2, 0], [7, 0]);
    move([2, 2], [7, 1]);
    move([2, 3], [7, 2]);
    const status = copyOut(context, fixture, {}, {});
    assertEquals(status, STATUS.ok, readText(native().ckv_context_error(context)));
    assertSameBytes(keys, expected, "the pool");
  });
});

Deno.test("sequences without tokens copy nothing, whatever their tables say", () => {
  withPool((context, fixture) => {
    const none = Int32Array.of(0, 0);
    fixture.held.push(none);
    const empty = { kv_len: 0, kv_lens: address(none), block_table: 0n, num_blocks: 10 };
    const before = fixture.memory.keys.slice();
    const kept = pack(fixture, "kept", { lens: address(none) });
    const keys = pack(fixture, "keys", { ...fixture.paged, ...empty });
    const to = pack(fixture, "keys", { ...fixture.paged, ...empty });
    assertEquals(native().ckv_compact(context, keys, to, kept), STATUS.ok);
    assertSameBytes(fixture.memory.keys, before, "the pool");
  });
});

Deno.test("a copy inside a pool over its own source is a status, and moves no byte", () => {
  withPool((context, fixture) => {
    const table = (...blocks: number[]) => {
      const array = Int32Array.from(blocks);
      fixture.held.push(array);
      return address(array);
    };
    const { keys } = fixture.memory;
    const before = keys.slice();
    const longer = { kv_len: 5, kv_lens: table(5, 3), max_blocks: 2 };
    const lies: [from: Values, to: Values][] = [
      [{}, { block_table: table(2, 7) }], // read by both
      [{}, { block_table: table(0, 9) }], // read by the last
      [{}, { block_table: table(5, 0) }], // read by the first alone, written for it
      [{}, { block_table: table(0, 5) }], // and for the other
      [{}, { block_table: table(7, 7) }], // written twice
      [{}, { ...longer, block_table: table(0, 7, 7, 3) }],
      [{}, { ...longer, block_table: table(0, 2, 7, 3) }],
      [{}, { block_table: table(0, 10) }], // no such block
      [{}, { block_table: table(-1, 7) }],
      [{ block_table: table(2, 5, 2, 10) }, { block_table: table(0, 7) }],
      [{}, { block_table: 0n }],
      // Not the same pool after all: the numbers of its blocks mean other bytes.
      [{}, { num_blocks: 9 }],
      [{ num_blocks: 9, block_table: table(2, 5, 2, 8) }, { num_blocks: 10 }],
      [{}, { block_size: 8, num_blocks: 5, stride_block: 8 * HEADS * ROW }],
      [{}, { stride_head: ROW * BLOCK, stride_token: ROW }],
      [{}, { stride_block: 2 * BLOCK * HEADS * ROW, num_blocks: 5, block_table: table(0, 3) }],
      [{}, { data: address(keys.subarray(8)), num_blocks: 9, size_bytes: keys.byteLength - 32 }],
      [{}, { block_size: 0, stride_batch: HEADS * 4 * ROW }],
      [{ block_size: 0, stride_batch: HEADS * 7 * ROW }, {}],
      [{}, { kv_len: 2, kv_lens: 0n }], // too short
    ];
    for (const [from, to] of lies) {
      const what = Deno.inspect({ from, to });
      const status = copyOut(context, fixture, from, to);
      assert(status === STATUS.invalid_argument || status === STATUS.out_of_bounds, what);
      assert(readText(native().ckv_context_error(context))?.startsWith("Expected "), what);
      assertSameBytes(keys, before, what);
    }
  });
});
