/**
 * Settings of a context.
 *
 * @module
 */
import { type Dtype, DTYPES, type Isa, ISAS } from "../../ffi/enums.ts";
import { check } from "../../ffi/status.ts";
import { checkInteger, MAX_INT32 } from "./integers.ts";
import { CONTEXT_PARAMS, packStruct } from "./structs.ts";

/** Element types that a KV cache can have. */
export type KvType = Exclude<Dtype, "f8_e4m3">;

/** Settings of a context. */
export interface LlamaContextOptions {
  /** Tokens that its KV cache has room for, all sequences together; llama.cpp rounds up to 256s. @default {what the model was trained for} */
  contextSize?: number;
  /** Most tokens that go to the engine at once. @default {512} */
  batchSize?: number;
  /** Most tokens that are computed at once. @default {512} */
  microBatchSize?: number;
  /** Threads. @default {one per core that this process may use} */
  threads?: number;
  /** Element type of keys and values. @default {"f16"} */
  kvType?: KvType;
  /** Element type of keys. @default {kvType} */
  keyType?: KvType;
  /** Element type of values. @default {kvType} */
  valueType?: KvType;
  /** Sequences that can be in the cache at once, up to 256. @default {1} */
  sequences?: number;
  /** Flash attention. Without it nothing can be compressed. @default {true} */
  flashAttention?: boolean;
  /** Whether layers with a sliding window cache all tokens, so that positions can shift. @default {false} */
  fullSlidingWindow?: boolean;
  /**
   * Most tokens that {@linkcode LlamaContext.score} decodes at once; the engine holds `vocabSize` floats
   * for each. At most `batchSize`. @default {as many as sequences}
   */
  scoreBatchSize?: number;
  /** Instruction set of the compression. @default {"best"} */
  isa?: Isa;
  /**
   * Whether the attention that each token gets is added up over all queries while they are decoded,
   * which the method `h2o` chooses by. It costs time in every decode call, and 8 bytes per cell, kv
   * head and layer (twice while a prompt goes in, once more while it is computed).
   *
   * @default {false}
   */
  accumulateAttention?: boolean;
}

/**
 * Checks and packs the settings.
 *
 * @param options The settings.
 * @returns A `ckv_llama_context_params`.
 * @throws {ChunkKvError} `invalid_argument` if one is out of its range.
 */
export function packContextParams(options: LlamaContextOptions): Uint8Array<ArrayBuffer> {
  const {
    contextSize,
    batchSize = 512,
    microBatchSize = 512,
    threads,
    kvType = "f16",
    keyType = kvType,
    valueType = kvType,
    sequences = 1,
    flashAttention = true,
    fullSlidingWindow = false,
    scoreBatchSize = 0,
    isa = "best",
    accumulateAttention = false,
  } = options;
  if (contextSize !== undefined) checkInteger("contextSize", contextSize, 1, MAX_INT32 - 255);
  if (threads !== undefined) checkInteger("threads", threads, 1, 1024);
  checkInteger("batchSize", batchSize, 1);
  checkInteger("microBatchSize", microBatchSize, 1);
  checkInteger("sequences", sequences, 1, 256);
  checkInteger("scoreBatchSize", scoreBatchSize, 0, batchSize);
  check(Object.hasOwn(ISAS, isa), `isa to be one of ${Object.keys(ISAS).join(", ")}`, isa);
  return packStruct(CONTEXT_PARAMS, {
    context_size: contextSize ?? 0,
    batch_size: batchSize,
    micro_batch_size: Math.min(microBatchSize, batchSize),
    num_threads: threads ?? 0,
    key_type: typeNumber("keyType", keyType),
    value_type: typeNumber("valueType", valueType),
    num_sequences: sequences,
    flash_attention: Number(flashAttention),
    full_sliding_window: Number(fullSlidingWindow),
    isa: ISAS[isa],
    max_outputs: scoreBatchSize,
    accumulate_attention: Number(accumulateAttention),
  });
}

function typeNumber(name: string, type: KvType): number {
  const types = Object.keys(DTYPES).filter((known) => known !== "f8_e4m3");
  check(types.includes(type), `${name} to be one of ${types.join(", ")}`, type);
  return DTYPES[type];
}
