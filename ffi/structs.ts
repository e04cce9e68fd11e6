/**
 * The structs of `chunkkv.h`: one field table each, offsets by the C rules for alignment. A test
 * compares sizes and offsets with a C compiler's.
 *
 * @module
 */
import { check } from "./status.ts";

const FIELD_BYTES = { u32: 4, i32: 4, f32: 4, i64: 8, pointer: 8 } as const;

/** Type of a struct's field; `pointer` is an address. */
export type FieldType = keyof typeof FIELD_BYTES;

type FieldTable = readonly (readonly [name: string, type: FieldType])[];

/** Where the fields of a struct are. */
export interface StructLayout<Name extends string = string> {
  /** The struct's C name. */
  readonly name: string;
  /** `sizeof`, in bytes. */
  readonly size: number;
  /** Type and byte offset of each field, in order. */
  readonly fields: ReadonlyMap<Name, { readonly type: FieldType; readonly offset: number }>;
}

/** Values for the fields of a struct: numbers, and addresses as bigint. */
export type StructValues<Name extends string> = Partial<Record<Name, number | bigint>>;

function struct<const Fields extends FieldTable>(
  name: string,
  table: Fields,
): StructLayout<Fields[number][0]> {
  const fields = new Map<Fields[number][0], { type: FieldType; offset: number }>();
  let offset = 0;
  let alignment = 1;
  for (const [field, type] of table) {
    const bytes = FIELD_BYTES[type];
    offset = Math.ceil(offset / bytes) * bytes;
    fields.set(field, { type, offset });
    offset += bytes;
    alignment = Math.max(alignment, bytes);
  }
  return { name, size: Math.ceil(offset / alignment) * alignment, fields };
}

/** `ckv_params`. */
export const PARAMS = struct("ckv_params", [
  ["struct_size", "u32"],
  ["method", "i32"],
  ["budget", "i32"],
  ["window", "i32"],
  ["chunk_size", "i32"],
  ["chunk_reduce", "i32"],
  ["fill", "i32"],
  ["layer_reuse", "i32"],
  ["pool_size", "i32"],
  ["num_sinks", "i32"],
  ["scale", "f32"],
  ["logit_softcap", "f32"],
  ["spread", "i32"],
]);

/** `ckv_query_view`. */
export const QUERY_VIEW = struct("ckv_query_view", [
  ["struct_size", "u32"],
  ["dtype", "i32"],
  ["device", "i32"],
  ["batch", "i32"],
  ["num_q_heads", "i32"],
  ["window", "i32"],
  ["head_dim", "i32"],
  ["reserved", "i32"],
  ["data", "pointer"],
  ["size_bytes", "i64"],
  ["stride_batch", "i64"],
  ["stride_head", "i64"],
  ["stride_row", "i64"],
  ["log_sum_exp", "pointer"],
]);

/** `ckv_kv_view`. */
export const KV_VIEW = struct("ckv_kv_view", [
  ["struct_size", "u32"],
  ["dtype", "i32"],
  ["device", "i32"],
  ["batch", "i32"],
  ["num_kv_heads", "i32"],
  ["head_dim", "i32"],
  ["kv_len", "i32"],
  ["block_size", "i32"],
  ["data", "pointer"],
  ["size_bytes", "i64"],
  ["stride_batch", "i64"],
  ["stride_head", "i64"],
  ["stride_token", "i64"],
  ["stride_block", "i64"],
  ["kv_lens", "pointer"],
  ["block_table", "pointer"],
  ["max_blocks", "i32"],
  ["num_blocks", "i32"],
]);

/** `ckv_scores`. */
export const SCORES = struct("ckv_scores", [
  ["struct_size", "u32"],
  ["batch", "i32"],
  ["num_heads", "i32"],
  ["kv_len", "i32"],
  ["kv_lens", "pointer"],
  ["data", "pointer"],
  ["count", "i64"],
]);

/** `ckv_kept`. */
export const KEPT = struct("ckv_kept", [
  ["struct_size", "u32"],
  ["batch", "i32"],
  ["num_heads", "i32"],
  ["capacity", "i32"],
  ["indices", "pointer"],
  ["lens", "pointer"],
]);

/** `ckv_layer`. */
export const LAYER = struct("ckv_layer", [
  ["struct_size", "u32"],
  ["reserved", "i32"],
  ["queries", "pointer"],
  ["keys", "pointer"],
  ["values", "pointer"],
]);

/** `ckv_context_params`. */
export const CONTEXT_PARAMS = struct("ckv_context_params", [
  ["struct_size", "u32"],
  ["num_threads", "i32"],
  ["isa", "i32"],
  ["device", "i32"],
  ["device_index", "i32"],
  ["reserved", "i32"],
]);

/** Every struct of the header, in its order. */
export const STRUCTS: readonly StructLayout[] = [
  PARAMS,
  QUERY_VIEW,
  KV_VIEW,
  SCORES,
  KEPT,
  LAYER,
  CONTEXT_PARAMS,
];

/**
 * Packs one struct; fields that are not given are 0, `struct_size` is the layout's size.
 *
 * @param layout The struct's layout.
 * @param values Values of its fields.
 * @returns `layout.size` bytes.
 * @throws {ChunkKvError} `invalid_argument` if a value does not fit its field.
 */
export function packStruct<Name extends string>(
  layout: StructLayout<Name>,
  values: StructValues<Name>,
): Uint8Array<ArrayBuffer> {
  return packStructs(layout, [values]);
}

/**
 * Packs an array of structs, one after the other as C does.
 *
 * @param layout The struct's layout.
 * @param rows Values of the fields of each struct.
 * @returns `rows.length * layout.size` bytes.
 * @throws {ChunkKvError} `invalid_argument` if a value does not fit its field.
 */
export function packStructs<Name extends string>(
  layout: StructLayout<Name>,
  rows: readonly StructValues<Name>[],
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(rows.length * layout.size);
  const view = new DataView(bytes.buffer);
  rows.forEach((values, row) => {
    for (const [name, { type, offset }] of layout.fields) {
      const value = values[name] ?? (name === "struct_size" ? layout.size : 0);
      writeField(view, row * layout.size + offset, type, value, `${layout.name}.${name}`);
    }
  });
  return bytes;
}

/**
 * Reads one field of a packed struct.
 *
 * @param layout The struct's layout.
 * @param bytes A packed struct.
 * @param name The field.
 * @returns Its value; addresses and 64-bit integers as bigint.
 */
export function readField<Name extends string>(
  layout: StructLayout<Name>,
  bytes: Uint8Array,
  name: Name,
): number | bigint {
  const field = layout.fields.get(name);
  check(field !== undefined, `a field of ${layout.name}`, name);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (field.type) {
    case "u32":
      return view.getUint32(field.offset, true);
    case "i32":
      return view.getInt32(field.offset, true);
    case "f32":
      return view.getFloat32(field.offset, true);
    case "i64":
      return view.getBigInt64(field.offset, true);
    case "pointer":
      return view.getBigUint64(field.offset, true);
  }
}

// All systems that Deno runs on are little-endian.
function writeField(
  view: DataView,
  offset: number,
  type: FieldType,
  value: number | bigint,
  what: string,
): void {
  if (type === "f32") {
    check(typeof value === "number" && !Number.isNaN(value), `${what} to be a number`, value);
    view.setFloat32(offset, value, true);
    return;
  }
  check(
    typeof value === "bigint" || Number.isSafeInteger(value),
    `${what} to be an integer`,
    value,
  );
  const integer = BigInt(value);
  const bits = FIELD_BYTES[type] * 8;
  const fits = type === "u32" || type === "pointer"
    ? BigInt.asUintN(bits, integer) === integer
    : BigInt.asIntN(bits, integer) === integer;
  check(fits, `${what} to fit ${bits} bits`, value);
  if (type === "u32") view.setUint32(offset, Number(integer), true);
  else if (type === "i32") view.setInt32(offset, Number(integer), true);
  else if (type === "i64") view.setBigInt64(offset, integer, true);
  else view.setBigUint64(offset, integer, true);
}
