/**
 * Settings of a compression, and what it reports.
 *
 * @module
 */
import { check } from "../../ffi/status.ts";
import {
  type ChunkKvOptions,
  type Method,
  methodByName,
  type SnapKvOptions,
  type StreamingLlmOptions,
} from "../../ffi/methods.ts";
import { packParams } from "../../ffi/params.ts";
import type { ContextHandle } from "./context_handle.ts";
import { checkInteger, checkSequence, MAX_INT32 } from "./integers.ts";
import { bridge, type Handle } from "./native.ts";
import { packStruct, readStruct, REPORT } from "./structs.ts";

/**
 * What to keep of a sequence: `keep` or `budget`, and a method with its settings. Settings that the
 * method does not know are ignored.
 */
export interface CompressOptions extends ChunkKvOptions, SnapKvOptions, StreamingLlmOptions {
  /**
   * How tokens are chosen: a name, or one of `chunkKv()`, `snapKv()`, `pyramidKv()`, `h2o()`,
   * `streamingLlm()` and `full()`.
   *
   * `h2o` needs a context with `accumulateAttention`. With `pyramidkv` layers keep different numbers of
   * tokens, on average `budget`. The cache has as many cells as the largest of them needs, up to twice
   * the budget; the other layers mask the rest. So it saves no memory beyond that, and each decode call
   * takes longer: it is there to compare quality.
   *
   * @default {"chunkkv"}
   */
  method?: string | Method;
  /** Fraction of the cached tokens that is kept, above 0 and at most 1. */
  keep?: number;
  /** Tokens that are kept, at least 1. */
  budget?: number;
  /** Which sequence. @default {0} */
  sequence?: number;
}

/** The tokens that one layer kept. */
export interface KeptLayer {
  /** The layer's number in the model. */
  readonly layer: number;
  /**
   * Indices into the tokens that were cached before, rising: one set for all heads, or one per kv
   * head.
   */
  readonly indices: readonly Int32Array<ArrayBuffer>[];
}

/** What a compression did. */
export interface CompressionReport {
  /** Tokens in the cache before. */
  readonly before: number;
  /** Tokens in the cache now; with `pyramidkv` of the layer that keeps most: `kept` has them all. */
  readonly after: number;
  /** What it took, everything included. */
  readonly milliseconds: number;
  /** Of that: scores and indices. */
  readonly selectMilliseconds: number;
  /** Of that: rows moved, cells freed. */
  readonly compactMilliseconds: number;
  /** Of that: the newest tokens' queries computed again; 0 right after a prompt. */
  readonly refreshMilliseconds: number;
  /** Bytes of the cache that are free again; cells that only some layers use are not. */
  readonly bytesFreed: number;
  /** Layers with a sliding window, whose cache was left as it was. */
  readonly slidingLayers: number;
  /** What each compacted layer kept, by rising layer. */
  readonly kept: readonly KeptLayer[];
}

/** A compression, ready for C. */
export interface PackedCompression {
  readonly sequence: number;
  readonly params: Uint8Array<ArrayBuffer>;
  readonly keep: number;
  readonly report: Uint8Array<ArrayBuffer>;
}

/**
 * Checks and packs the settings.
 *
 * @param options The settings.
 * @returns What the C function takes.
 * @throws {ChunkKvError} `invalid_argument` if one is out of its range.
 */
export function packCompression(options: CompressOptions): PackedCompression {
  const { method: wanted = "chunkkv", keep, budget, sequence = 0 } = options;
  const method = typeof wanted === "string" ? methodByName(wanted, settings(options)) : wanted;
  check(
    keep === undefined || budget === undefined,
    "one of budget and keep",
    `budget ${budget} and keep ${keep}`,
  );
  check(
    keep !== undefined || budget !== undefined || method.name === "full",
    `budget or keep for ${method.name}`,
    "neither",
  );
  check(
    budget === undefined || (Number.isInteger(budget) && budget >= 1 && budget <= MAX_INT32),
    "budget to be an integer of at least 1",
    budget,
  );
  check(
    keep === undefined || (typeof keep === "number" && keep > 0 && keep <= 1),
    "keep to be a fraction above 0 and at most 1",
    keep,
  );
  return {
    sequence: checkSequence(sequence),
    params: packParams(method, budget ?? 0),
    keep: keep ?? 1,
    report: packStruct(REPORT, {}),
  };
}

// exactOptionalPropertyTypes: an absent setting must stay absent.
function settings(
  options: CompressOptions,
): ChunkKvOptions & SnapKvOptions & StreamingLlmOptions {
  const { method: _method, keep: _keep, budget: _budget, sequence: _sequence, ...rest } = options;
  return rest;
}

/**
 * Reads what a compression did.
 *
 * @param context The context that has just been compressed.
 * @param report The packed report.
 * @param milliseconds What it took.
 * @returns The report.
 */
export function readReport(
  context: Handle,
  report: Uint8Array<ArrayBuffer>,
  milliseconds: number,
): CompressionReport {
  const values = readStruct(REPORT, report);
  return {
    before: values.before,
    after: values.after,
    milliseconds,
    selectMilliseconds: values.select_ms,
    compactMilliseconds: values.compact_ms,
    refreshMilliseconds: values.refresh_ms,
    bytesFreed: values.bytes_freed,
    slidingLayers: values.num_sliding,
    kept: Array.from({ length: values.num_layers }, (_, layer) => readKept(context, layer)),
  };
}

/**
 * Compresses a sequence on another thread.
 *
 * @param context The context.
 * @param options What to keep.
 * @returns What it did.
 * @throws {ChunkKvError} As `LlamaContext.compress`.
 */
export async function compressAsync(
  context: ContextHandle,
  options: CompressOptions,
): Promise<CompressionReport> {
  const { sequence, params, keep, report } = packCompression(options);
  const start = performance.now();
  void context.idle;
  const status = await context.run((pointer) =>
    bridge().ckv_llama_compress_async(pointer, sequence, params, keep, report)
  );
  context.unwrap(status);
  return readReport(context, report, performance.now() - start);
}

function readKept(context: Handle, layer: number): KeptLayer {
  const { ckv_llama_kept } = bridge();
  const number = new Int32Array(1);
  const indices: Int32Array<ArrayBuffer>[] = [];
  for (let head = 0;; head++) {
    const probe = new Int32Array(0);
    const length = ckv_llama_kept(context.pointer, layer, head, number, probe, 0);
    if (length < 0) break;
    const set = new Int32Array(length);
    ckv_llama_kept(context.pointer, layer, head, number, set, length);
    indices.push(set);
  }
  return { layer: number[0] ?? -1, indices };
}

/** Index sets of all compacted layers: for each one set, or one per kv head. */
export type LayerIndices = readonly (ArrayLike<number> | readonly ArrayLike<number>[])[];

/** Indices packed for `ckv_llama_compact`. */
export interface PackedIndices {
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKept: number;
  readonly data: Int32Array<ArrayBuffer>;
}

/**
 * Packs index sets of all layers.
 *
 * @param layers For each compacted layer one set, or one per kv head.
 * @returns The packed indices.
 * @throws {ChunkKvError} `invalid_argument` if they are not all of one shape.
 */
export function packIndices(layers: LayerIndices): PackedIndices {
  const sets = layers.map((layer) => isSets(layer) ? layer : [layer]);
  const numHeads = sets[0]?.length ?? 0;
  const numKept = sets[0]?.[0]?.length ?? 0;
  const data = new Int32Array(sets.length * numHeads * numKept);
  sets.forEach((heads, layer) => {
    check(
      heads.length === numHeads,
      `${numHeads} index sets in layer ${layer} as in the first`,
      heads.length,
    );
    heads.forEach((set, head) => {
      check(
        set.length === numKept,
        `${numKept} indices in layer ${layer} as in the first`,
        set.length,
      );
      for (let i = 0; i < numKept; i++) {
        const index = set[i] ?? NaN;
        // Negative ones are C's to refuse, with the layer that has them.
        checkInteger("an index", index, -MAX_INT32);
        data[(layer * numHeads + head) * numKept + i] = index;
      }
    });
  });
  return { numLayers: sets.length, numHeads, numKept, data };
}

function isSets(
  layer: ArrayLike<number> | readonly ArrayLike<number>[],
): layer is readonly ArrayLike<number>[] {
  return typeof layer[0] === "object";
}
