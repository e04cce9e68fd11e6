/**
 * Right arguments for every call, of which tests change single fields.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { Isa } from "chunkkv";
import { ISAS } from "../../ffi/enums.ts";
import { native } from "../../ffi/library.ts";
import { STATUS } from "../../ffi/status.ts";
import {
  CONTEXT_PARAMS,
  KEPT,
  KV_VIEW,
  LAYER,
  packStruct,
  PARAMS,
  QUERY_VIEW,
  SCORES,
  type StructValues,
} from "../../ffi/structs.ts";

/** Sizes of everything: small, and no two alike. */
export const BATCH = 2, HEADS = 2, TOKENS = 20, HEAD_DIM = 8, WINDOW = 4, BLOCK = 4;
export const ROW = HEAD_DIM * 4;
export const MAX_BLOCKS = TOKENS / BLOCK;

/** Values of any fields. */
export type Values = StructValues<string>;

/** The address of an array. */
export function address(array: ArrayBufferView<ArrayBuffer>): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(array));
}

/** Everything that calls need, right; `change` overrides single fields to make it wrong. */
export function makeFixture() {
  const bytes = BATCH * HEADS * TOKENS * ROW;
  const memory = {
    keys: new Float32Array(bytes / 4).map((_, i) => Math.sin(i)),
    values: new Float32Array(bytes / 4).map((_, i) => Math.cos(i)),
    to: new Float32Array(bytes / 4).fill(7),
    queries: new Float32Array(BATCH * 4 * WINDOW * HEAD_DIM).map((_, i) => Math.sin(3 * i)),
    table: Int32Array.from({ length: BATCH * MAX_BLOCKS }, (_, i) => (i * 3) % 10),
    scores: new Float32Array(BATCH * TOKENS).map((_, i) => i % 5),
    chunks: new Float32Array(BATCH * 8),
    kvLens: Int32Array.of(TOKENS, 7),
    indices: Int32Array.of(0, 3, 19, 1, 2, 6),
    lens: Int32Array.of(3, 3),
    out: new Int32Array(BATCH * TOKENS),
    outLens: new Int32Array(BATCH),
  };
  const kv = (data: ArrayBufferView<ArrayBuffer>) => ({
    dtype: 0,
    batch: BATCH,
    num_kv_heads: HEADS,
    head_dim: HEAD_DIM,
    kv_len: TOKENS,
    data: address(data),
    size_bytes: bytes,
    stride_batch: HEADS * TOKENS * ROW,
    stride_head: TOKENS * ROW,
    stride_token: ROW,
  });
  const paged = {
    stride_batch: 0,
    stride_head: ROW,
    stride_token: HEADS * ROW,
    stride_block: BLOCK * HEADS * ROW,
    block_size: BLOCK,
    block_table: address(memory.table),
    max_blocks: MAX_BLOCKS,
    num_blocks: BATCH * MAX_BLOCKS,
  };
  const structs = {
    params: {
      ...{ method: 3, budget: 8, window: WINDOW, chunk_size: 3, layer_reuse: 1, pool_size: 5 },
      spread: 1,
    },
    queries: {
      dtype: 0,
      batch: BATCH,
      num_q_heads: 4,
      window: WINDOW,
      head_dim: HEAD_DIM,
      data: address(memory.queries),
      size_bytes: memory.queries.byteLength,
      stride_batch: 4 * WINDOW * ROW,
      stride_head: WINDOW * ROW,
      stride_row: ROW,
    },
    keys: kv(memory.keys),
    values: kv(memory.values),
    to: kv(memory.to),
    scores: {
      batch: BATCH,
      num_heads: 1,
      kv_len: TOKENS,
      data: address(memory.scores),
      count: memory.scores.length,
    },
    kept: {
      batch: BATCH,
      num_heads: 1,
      capacity: 3,
      indices: address(memory.indices),
      lens: address(memory.lens),
    },
    out: {
      batch: BATCH,
      num_heads: 1,
      capacity: TOKENS,
      indices: address(memory.out),
      lens: address(memory.outLens),
    },
  };
  /** Arrays that changed fields point at, alive as long as the fixture. */
  const held: Int32Array[] = [];
  return { memory, structs, paged, held };
}

/** What {@linkcode makeFixture} makes. */
export type Fixture = ReturnType<typeof makeFixture>;
/** A struct of the fixture. */
export type StructName = keyof Fixture["structs"];
/** A call; `compactTo` is out of place. */
export type CallName = "score" | "chunkScores" | "select" | "compact" | "compactTo" | "compress";

const LAYOUTS_OF = {
  params: PARAMS,
  queries: QUERY_VIEW,
  keys: KV_VIEW,
  values: KV_VIEW,
  to: KV_VIEW,
  scores: SCORES,
  kept: KEPT,
  out: KEPT,
} as const;

/** Packs one struct of the fixture, with fields overridden. */
export function pack({ structs }: Fixture, name: StructName, change: Values = {}) {
  const values: Values = structs[name];
  return packStruct<string>(LAYOUTS_OF[name], { ...values, ...change });
}

/** Makes one call with one struct changed. */
export function call(
  context: Deno.PointerObject,
  fixture: Fixture,
  name: CallName,
  changed: StructName | "none",
  change: Values,
): number {
  const get = (struct: StructName) => pack(fixture, struct, struct === changed ? change : {});
  const c = native();
  const { chunks } = fixture.memory;
  switch (name) {
    case "score":
      return c.ckv_score(context, get("params"), get("queries"), get("keys"), get("scores"));
    case "chunkScores":
      return c.ckv_chunk_scores(
        context,
        get("params"),
        get("scores"),
        Deno.UnsafePointer.of(chunks),
        BigInt(chunks.length),
      );
    case "select":
      return c.ckv_select(context, get("params"), get("scores"), get("out"));
    case "compact":
      return c.ckv_compact(context, get("keys"), null, get("kept"));
    case "compactTo":
      return c.ckv_compact(context, get("keys"), get("to"), get("kept"));
    case "compress": {
      const [queries, keys, values] = [get("queries"), get("keys"), get("values")];
      const layer = packStruct(LAYER, {
        queries: address(queries),
        keys: address(keys),
        values: address(values),
      });
      const status = c.ckv_compress(context, get("params"), layer, 1, get("out"));
      assert(queries.length && keys.length && values.length); // alive until here
      return status;
    }
  }
}

/** Runs `body` with a context of an instruction set and two threads. */
export function withContext(isa: Isa, body: (context: Deno.PointerObject) => void): void {
  const created = new BigUint64Array(1);
  const params = packStruct(CONTEXT_PARAMS, { isa: ISAS[isa], num_threads: 2 });
  assertEquals(native().ckv_context_create(params, created), STATUS.ok);
  const context = Deno.UnsafePointer.create(created[0] ?? 0n);
  assert(context !== null);
  try {
    body(context);
  } finally {
    native().ckv_context_free(context);
  }
}
