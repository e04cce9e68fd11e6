/**
 * ChunkKV: shrinks the KV cache of a transformer after prefill. Neighbouring tokens form chunks;
 * the chunks that the newest tokens attend to most are kept whole, the rest is dropped.
 *
 * This module is the library alone, on one's own arrays; `chunkkv/llama-cpp` is a real engine.
 *
 * @example Keep a tenth of a layer's cache
 * ```ts
 * import { chunkKv, Compressor, contiguousKv, queryView } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * const shape = { numKvHeads: 1, kvLen: 1000, headDim: 64 };
 * const keys = contiguousKv({ data: new Float32Array(1000 * 64), ...shape });
 * const values = contiguousKv({ data: new Float32Array(1000 * 64), ...shape });
 * const queries = queryView({
 *   data: new Float32Array(4 * 32 * 64),
 *   numQHeads: 4,
 *   window: 32,
 *   headDim: 64,
 * });
 *
 * using compressor = new Compressor();
 * const kept = compressor.select({ queries, keys, method: chunkKv(), keep: 0.1 });
 * compressor.compact({ keys, values, kept });
 * assertEquals(kept.lens[0], 100);
 * ```
 *
 * @module
 */
export * from "./ffi/compressor.ts";
export { type DataOptions, type KvData, type NativeMemory, rowBytes } from "./ffi/data.ts";
export { describeDevice } from "./ffi/device.ts";
export * from "./ffi/device_buffer.ts";
export * from "./ffi/device_results.ts";
export * from "./ffi/enums.ts";
export * from "./ffi/kept.ts";
export * from "./ffi/kv_view.ts";
export { libraryPath, libraryVersion, methodNames, usableIsas } from "./ffi/library.ts";
export { LIBRARY_VARIABLE, libraryFileName } from "./ffi/library_path.ts";
export {
  chunkKv,
  type ChunkKvOptions,
  full,
  h2o,
  MAX_SPREAD,
  MAX_WINDOW,
  type Method,
  methodByName,
  pyramidKv,
  snapKv,
  type SnapKvOptions,
  streamingLlm,
  type StreamingLlmOptions,
} from "./ffi/methods.ts";
export { budgetFor, type BudgetOptions, layerBudget, type LogitOptions } from "./ffi/params.ts";
export type { AnyKept, AnyScores, KeptOn, ScoresOn } from "./ffi/place.ts";
export * from "./ffi/query_view.ts";
export * from "./ffi/scores.ts";
export type {
  ChunkScoresFromKeysOptions,
  ChunkScoresFromScoresOptions,
  ChunkScoresOptions,
  CompactOptions,
  CompressLayer,
  CompressOptions,
  ScoreOptions,
  SelectFromKeysOptions,
  SelectFromScoresOptions,
  SelectOptions,
} from "./ffi/stages.ts";
export { ChunkKvError, type ChunkKvErrorCode, STATUS, type StatusCode } from "./ffi/status.ts";
