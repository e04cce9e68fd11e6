/**
 * Descriptions that lie, and what each must be answered with.
 *
 * @module
 */
import type { STATUS } from "../../ffi/status.ts";
import { KEPT, KV_VIEW, PARAMS } from "../../ffi/structs.ts";
import { METHODS } from "../../ffi/enums.ts";
import {
  address,
  BATCH,
  type CallName,
  type Fixture,
  HEADS,
  MAX_BLOCKS,
  ROW,
  type StructName,
  TOKENS,
  type Values,
} from "./hostile_fixture.ts";

const HUGE = 2n ** 62n;

/** Fields of a view of keys or values that are wrong, whatever the call. */
const WRONG_KV: [change: Values, ...codes: (keyof typeof STATUS)[]][] = [
  [{ struct_size: 0 }, "invalid_argument"],
  [{ struct_size: KV_VIEW.size - 8 }, "invalid_argument"],
  [{ struct_size: KV_VIEW.size + 8 }, "invalid_argument"],
  [{ dtype: -1 }, "invalid_argument"],
  [{ dtype: 99 }, "invalid_argument"],
  [{ dtype: 3 }, "invalid_argument"], // q8_0 of 8 elements
  [{ device: 1 }, "unsupported"],
  [{ device: 7 }, "invalid_argument"],
  [{ batch: -1 }, "invalid_argument"],
  [{ batch: 2 ** 31 - 1 }, "invalid_argument", "out_of_bounds"],
  [{ num_kv_heads: 0 }, "invalid_argument"],
  [{ num_kv_heads: -2 }, "invalid_argument"],
  [{ num_kv_heads: 2 ** 31 - 1 }, "invalid_argument", "out_of_bounds"],
  [{ head_dim: 0 }, "invalid_argument"],
  [{ head_dim: -8 }, "invalid_argument"],
  [{ head_dim: 2 ** 31 - 1 }, "invalid_argument", "out_of_bounds"],
  [{ kv_len: -1 }, "invalid_argument"],
  [{ kv_len: 2 ** 31 - 1 }, "invalid_argument", "out_of_bounds"],
  [{ kv_len: TOKENS * 3 }, "out_of_bounds"],
  [{ block_size: -1 }, "invalid_argument"],
  [{ data: 0n }, "invalid_argument"],
  [{ size_bytes: BATCH * HEADS * TOKENS * ROW - 1 }, "out_of_bounds"],
  [{ size_bytes: 0 }, "out_of_bounds"],
  [{ size_bytes: -1 }, "invalid_argument", "out_of_bounds"],
  [{ stride_token: -ROW }, "out_of_bounds", "invalid_argument"],
  [{ stride_head: -1 }, "out_of_bounds", "invalid_argument"],
  [{ stride_batch: -(2n ** 63n) }, "out_of_bounds", "invalid_argument"],
  [{ stride_token: HUGE }, "out_of_bounds"],
  [{ stride_head: HUGE }, "out_of_bounds"],
  [{ stride_batch: HUGE }, "out_of_bounds"],
];

/** Fields of a paged view that are wrong. */
const WRONG_PAGED: [change: Values, ...codes: (keyof typeof STATUS)[]][] = [
  [{ block_table: 0n }, "invalid_argument"],
  [{ max_blocks: MAX_BLOCKS - 1 }, "invalid_argument", "out_of_bounds"],
  [{ max_blocks: -1 }, "invalid_argument"],
  [{ num_blocks: 9 }, "out_of_bounds"], // the table names block 9
  [{ num_blocks: 0 }, "invalid_argument", "out_of_bounds"],
  [{ num_blocks: 11 }, "out_of_bounds"], // more than there is memory for
  [{ num_blocks: 2 ** 31 - 1 }, "out_of_bounds"],
  [{ stride_block: -64 }, "out_of_bounds", "invalid_argument"],
  [{ stride_block: HUGE }, "out_of_bounds"],
  [{ block_size: 2 ** 31 - 1 }, "out_of_bounds"],
];

/** A call with some fields of one struct changed, and the codes that it may end in. */
export interface Attack {
  call: CallName;
  struct: StructName | "none";
  change: Values;
  codes: readonly (keyof typeof STATUS)[];
}

/** Every attack on a fixture. */
export function attacks(fixture: Fixture): Attack[] {
  const { memory, paged } = fixture;
  const invalid = ["invalid_argument"] as const;
  const bounds = ["out_of_bounds", "invalid_argument"] as const;
  const views: [CallName, StructName][] = [
    ["score", "keys"],
    ["compact", "keys"],
    ["compactTo", "keys"],
    ["compactTo", "to"],
    ["compress", "keys"],
    ["compress", "values"],
  ];
  const params: Values[] = [
    { struct_size: PARAMS.size + 4 },
    { method: -1 },
    { method: Object.keys(METHODS).length },
    { budget: 0 },
    { budget: -5 },
    { window: 0 },
    { window: 65 },
    { window: -1 },
    { chunk_size: 0 },
    { chunk_size: -3 },
    { chunk_reduce: 3 },
    { fill: 2 },
    { layer_reuse: 0 },
    { pool_size: 0 },
    { pool_size: 4 },
    { num_sinks: -1 },
    { scale: -1 },
    { scale: Infinity },
    { logit_softcap: -1 },
    { logit_softcap: Infinity },
    { spread: 0 },
    { spread: 65 },
  ];
  const queries: [Values, readonly (keyof typeof STATUS)[]][] = [
    [{ struct_size: 1 }, invalid],
    [{ dtype: 3 }, invalid],
    [{ dtype: -7 }, invalid],
    [{ device: 1 }, ["unsupported", "invalid_argument"]],
    [{ batch: 1 }, invalid],
    [{ num_q_heads: 3 }, invalid],
    [{ num_q_heads: 0 }, invalid],
    [{ num_q_heads: -4 }, invalid],
    [{ window: 3 }, invalid],
    [{ head_dim: 16 }, invalid],
    [{ data: 0n }, invalid],
    [{ size_bytes: memory.queries.byteLength - 1 }, bounds],
    [{ stride_row: -ROW }, bounds],
    [{ stride_head: HUGE }, bounds],
    [{ stride_batch: HUGE }, bounds],
    [{ num_q_heads: 2 ** 31 - 2 }, bounds],
  ];
  const scores: Values[] = [
    { struct_size: 0 },
    { batch: -1 },
    { num_heads: -1 },
    { num_heads: 0 },
    { num_heads: 2 },
    { kv_len: -1 },
    { kv_len: TOKENS + 1 },
    { kv_len: 2 ** 31 - 1 },
    { batch: 2 ** 31 - 1 },
    { data: 0n },
    { count: 1 },
    { count: -1 },
  ];
  const kept: Values[] = [
    { struct_size: KEPT.size * 2 },
    { batch: 1 },
    { batch: 3 },
    { num_heads: 0 },
    { num_heads: 3 },
    { num_heads: -1 },
    { capacity: 2 }, // lens say 3
    { capacity: -1 },
    { indices: 0n },
    { lens: 0n },
  ];
  const lens = (values: number[]) => {
    const array = Int32Array.from(values);
    fixture.held.push(array);
    return address(array);
  };
  const list: Attack[] = [
    ...views.flatMap(([name, struct]) => [
      ...WRONG_KV.map(([change, ...codes]) => ({ call: name, struct, change, codes })),
      ...WRONG_PAGED.map(([change, ...codes]) => ({
        call: name,
        struct,
        change: { ...paged, ...change },
        codes,
      })),
      { call: name, struct, change: { kv_lens: lens([TOKENS + 1, 3]) }, codes: invalid },
      { call: name, struct, change: { kv_lens: lens([3, -1]) }, codes: invalid },
      {
        call: name,
        struct,
        change: { ...paged, block_table: lens([0, 1, 2, -1, 4, 5, 6, 7, 8, 9]) },
        codes: ["out_of_bounds"] as const,
      },
    ]),
    // Rows that share bytes, or blocks that are named twice, may be read but never written.
    ...(["compact", "compress"] as const).flatMap((name) => [
      { call: name, struct: "keys" as const, change: { stride_token: ROW / 2 }, codes: invalid },
      { call: name, struct: "keys" as const, change: { stride_head: 0 }, codes: invalid },
      { call: name, struct: "keys" as const, change: { stride_batch: 0 }, codes: invalid },
      {
        call: name,
        struct: "keys" as const,
        change: { ...paged, block_table: lens([0, 1, 2, 3, 4, 5, 6, 7, 8, 8]) },
        codes: invalid,
      },
    ]),
    ...params.flatMap((change) =>
      (["score", "chunkScores", "select", "compress"] as const).map((name) => ({
        call: name,
        struct: "params" as const,
        change,
        codes: invalid,
      }))
    ),
    ...queries.flatMap(([change, codes]) =>
      (["score", "compress"] as const).map((name) => ({
        call: name,
        struct: "queries" as const,
        change,
        codes,
      }))
    ),
    ...scores.flatMap((change) =>
      (["score", "chunkScores", "select"] as const).map((name) => ({
        call: name,
        struct: "scores" as const,
        change,
        codes: invalid,
      }))
    ),
    ...kept.flatMap((change) =>
      (["compact", "compactTo"] as const).map((name) => ({
        call: name,
        struct: "kept" as const,
        change,
        codes: invalid,
      }))
    ),
    ...[
      { struct_size: 0 },
      { batch: 1 },
      { num_heads: 2 },
      { capacity: 7 },
      { indices: 0n },
      { lens: 0n },
    ].flatMap((change) =>
      (["select", "compress"] as const).map((name) => ({
        call: name,
        struct: "out" as const,
        change,
        codes: invalid,
      }))
    ),
    // Indices that do not rise, or leave their sequence.
    ...[[3, 0, 19, 1, 2, 6], [0, 0, 19, 1, 2, 6], [0, 3, TOKENS, 1, 2, 6], [-1, 3, 19, 1, 2, 6], [
      0,
      3,
      19,
      1,
      2,
      2 ** 31 - 1,
    ]].flatMap((indices) =>
      (["compact", "compactTo"] as const).map((name) => ({
        call: name,
        struct: "kept" as const,
        change: { indices: lens(indices) },
        codes: invalid,
      }))
    ),
    ...[[-1, 3], [3, 4], [3, 2 ** 31 - 1]].map((values) => ({
      call: "compact" as const,
      struct: "kept" as const,
      change: { lens: lens(values) },
      codes: invalid,
    })),
    // A destination that is not the source's kind, too small, or over the source.
    ...[
      { dtype: 1 },
      { head_dim: 4 },
      { num_kv_heads: 1 },
      { batch: 1 },
      { kv_len: 2 },
      { data: address(memory.keys) },
      {
        data: address(memory.keys.subarray(8)),
        size_bytes: memory.keys.byteLength - 32,
        batch: 2,
        kv_len: 4,
      },
    ].map((change) => ({
      call: "compactTo" as const,
      struct: "to" as const,
      change,
      codes: invalid,
    })),
  ];
  return list;
}
