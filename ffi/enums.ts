/**
 * The enums of `chunkkv.h` by their names, in header order. A test compares each with the header.
 *
 * @module
 */

/** `CKV_ABI_VERSION` that this package was written for. */
export const ABI_VERSION = 2;

/** `ckv_dtype`: element types of queries, keys and values. */
export const DTYPES = { f32: 0, f16: 1, bf16: 2, q8_0: 3, q4_0: 4, f8_e4m3: 5 } as const;

/** `ckv_device`: where the data of a view lies. */
export const DEVICES = { cpu: 0, cuda: 1 } as const;

/** `ckv_isa`: instruction sets of the CPU kernels, in rising preference. */
export const ISAS = {
  best: -1,
  serial: 0,
  avx2: 1,
  avx512: 2,
  avx512_bf16: 3,
  neon: 4,
  neon_bf16: 5,
} as const;

/** `ckv_method`: how tokens are chosen. */
export const METHODS = {
  full: 0,
  streaming_llm: 1,
  snapkv: 2,
  chunkkv: 3,
  h2o: 4,
  pyramidkv: 5,
} as const;

/** `ckv_chunk_reduce`: how the token scores of a chunk become its chunk score. */
export const CHUNK_REDUCES = { sum: 0, mean: 1, max: 2 } as const;

/** `ckv_fill`: what happens to the budget that whole chunks leave over. */
export const FILLS = { exact: 0, none: 1 } as const;

/** `ckv_copy_kind`: which way `ckv_device_copy` copies. */
export const COPY_KINDS = { to_device: 0, to_host: 1, on_device: 2 } as const;

/**
 * Element type of a view. `q8_0` and `q4_0` are ggml's: 32 elements in 34 and 18 bytes; `f8_e4m3`
 * is OCP e4m3fn with unit scale.
 */
export type Dtype = keyof typeof DTYPES;

/** Where the data of a view lies. */
export type Device = keyof typeof DEVICES;

/** Instruction set of the CPU kernels; `best`: the best that this CPU runs. */
export type Isa = keyof typeof ISAS;

/** A method's name: what `methodByName` takes. */
export type MethodName = keyof typeof METHODS;

/** How the token scores of a chunk become its chunk score; the paper sums. */
export type ChunkReduce = keyof typeof CHUNK_REDUCES;

/**
 * What happens to the budget that whole chunks leave over: `exact` keeps exactly
 * `min(budget, kvLen)` tokens, `none` keeps whole chunks only, and always the whole window.
 */
export type Fill = keyof typeof FILLS;
