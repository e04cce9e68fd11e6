/**
 * The structs of `csrc/bridge.h`: one field table each, offsets by the C rules for alignment. A test
 * compares them with the header.
 *
 * @module
 */

const FIELD_BYTES = { u32: 4, i32: 4, f32: 4, i64: 8, f64: 8 } as const;

/** Type of a struct's field. */
export type FieldType = keyof typeof FIELD_BYTES;

/** Fields of a struct, in order: name and type. */
export type StructFields = Readonly<Record<string, FieldType>>;

/** `ckv_llama_model_params`. */
export const MODEL_PARAMS = {
  struct_size: "u32",
  gpu_layers: "i32",
  use_mmap: "i32",
  reserved: "i32",
} as const satisfies StructFields;

/** `ckv_llama_model_info`. */
export const MODEL_INFO = {
  struct_size: "u32",
  vocab_size: "i32",
  trained_context: "i32",
  num_layers: "i32",
  embedding_size: "i32",
  num_q_heads: "i32",
  num_kv_heads: "i32",
  sliding_window: "i32",
  bos: "i32",
  eos: "i32",
  eot: "i32",
  adds_bos: "i32",
  size_bytes: "i64",
  num_parameters: "i64",
} as const satisfies StructFields;

/** `ckv_llama_context_params`. */
export const CONTEXT_PARAMS = {
  struct_size: "u32",
  context_size: "i32",
  batch_size: "i32",
  micro_batch_size: "i32",
  num_threads: "i32",
  key_type: "i32",
  value_type: "i32",
  num_sequences: "i32",
  flash_attention: "i32",
  full_sliding_window: "i32",
  isa: "i32",
  max_outputs: "i32",
  accumulate_attention: "i32",
} as const satisfies StructFields;

/** `ckv_llama_context_info`. */
export const CONTEXT_INFO = {
  struct_size: "u32",
  context_size: "i32",
  batch_size: "i32",
  micro_batch_size: "i32",
  num_sequences: "i32",
  num_threads: "i32",
  isa: "i32",
  is_unhooked: "i32",
} as const satisfies StructFields;

/** `ckv_llama_sampler_params`. */
export const SAMPLER_PARAMS = {
  struct_size: "u32",
  temperature: "f32",
  top_k: "i32",
  top_p: "f32",
  min_p: "f32",
  repeat_penalty: "f32",
  repeat_last: "i32",
  ignore_end: "i32",
  seed: "u32",
} as const satisfies StructFields;

/** `ckv_llama_report`. */
export const REPORT = {
  struct_size: "u32",
  before: "i32",
  after: "i32",
  num_layers: "i32",
  num_sliding: "i32",
  max_heads: "i32",
  bytes_freed: "i64",
  select_ms: "f64",
  compact_ms: "f64",
  refresh_ms: "f64",
} as const satisfies StructFields;

/** Every struct of the header, by its C name, in its order. */
export const STRUCTS: Readonly<Record<string, StructFields>> = {
  ckv_llama_model_params: MODEL_PARAMS,
  ckv_llama_model_info: MODEL_INFO,
  ckv_llama_context_params: CONTEXT_PARAMS,
  ckv_llama_context_info: CONTEXT_INFO,
  ckv_llama_sampler_params: SAMPLER_PARAMS,
  ckv_llama_report: REPORT,
};

/**
 * Packs one struct, `struct_size` included; fields that are not given are 0.
 *
 * @param fields The struct's fields.
 * @param values Values of fields, each in the range of its type.
 * @returns The struct's bytes.
 */
export function packStruct<Fields extends StructFields>(
  fields: Fields,
  values: Partial<Record<keyof Fields, number>>,
): Uint8Array<ArrayBuffer> {
  const { size, offsets } = layoutOf(fields);
  const view = new DataView(new ArrayBuffer(size));
  for (const [name, type] of Object.entries(fields)) {
    const value = name === "struct_size" ? size : values[name] ?? 0;
    const offset = offsets.get(name) ?? 0;
    // All systems that Deno runs on are little-endian.
    if (type === "u32") view.setUint32(offset, value, true);
    else if (type === "i32") view.setInt32(offset, value, true);
    else if (type === "f32") view.setFloat32(offset, value, true);
    else if (type === "f64") view.setFloat64(offset, value, true);
    else view.setBigInt64(offset, BigInt(value), true);
  }
  return new Uint8Array(view.buffer);
}

/**
 * Reads one struct.
 *
 * @param fields The struct's fields.
 * @param bytes Its bytes.
 * @returns The value of each field.
 */
export function readStruct<Fields extends StructFields>(
  fields: Fields,
  bytes: Uint8Array<ArrayBuffer>,
): Record<keyof Fields, number> {
  const { offsets } = layoutOf(fields);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values: Record<string, number> = {};
  for (const [name, type] of Object.entries(fields)) {
    const offset = offsets.get(name) ?? 0;
    if (type === "u32") values[name] = view.getUint32(offset, true);
    else if (type === "i32") values[name] = view.getInt32(offset, true);
    else if (type === "f32") values[name] = view.getFloat32(offset, true);
    else if (type === "f64") values[name] = view.getFloat64(offset, true);
    else values[name] = Number(view.getBigInt64(offset, true));
  }
  return values as Record<keyof Fields, number>;
}

/**
 * Where the fields of a struct are.
 *
 * @param fields The struct's fields.
 * @returns `sizeof` and the offset of each field, in bytes.
 */
export function layoutOf(fields: StructFields): { size: number; offsets: Map<string, number> } {
  const offsets = new Map<string, number>();
  let size = 0;
  let alignment = 1;
  for (const [name, type] of Object.entries(fields)) {
    const bytes = FIELD_BYTES[type];
    size = Math.ceil(size / bytes) * bytes;
    offsets.set(name, size);
    size += bytes;
    alignment = Math.max(alignment, bytes);
  }
  return { size: Math.ceil(size / alignment) * alignment, offsets };
}
