/**
 * The methods and their settings.
 *
 * @module
 */
import { CHUNK_REDUCES, type ChunkReduce, type Fill, FILLS, METHODS } from "./enums.ts";
import { check } from "./status.ts";

/** Most tokens that an observation window may have. */
export const MAX_WINDOW = 64;

/** Most tokens that a token's score may be spread over. */
export const MAX_SPREAD = 64;

/** The largest integer that C takes. */
export const MAX_INT32 = 2 ** 31 - 1;

/** Settings of {@linkcode chunkKv}. */
export interface ChunkKvOptions {
  /** Tokens in a chunk. @default {10} */
  chunkSize?: number;
  /** Newest tokens, whose queries score the rest and which always stay: 1 to 64. @default {32} */
  window?: number;
  /** How the token scores of a chunk become its chunk score. @default {"sum"} */
  reduce?: ChunkReduce;
  /** What happens to the budget that whole chunks leave over. @default {"exact"} */
  fill?: Fill;
  /** Layers that share one index set: the first of each group selects. @default {1} */
  reuse?: number;
  /**
   * Tokens that share a token's score: itself and those after it. What a model reads off token by
   * token, as numbers, gets attention where it begins; with 8 or so the chunk in which it goes on is
   * kept, too. 1 to 64. @default {1}
   */
  spread?: number;
}

/** Settings of {@linkcode snapKv}. */
export interface SnapKvOptions {
  /** Newest tokens, whose queries score the rest and which always stay: 1 to 64. @default {32} */
  window?: number;
  /** Width of the average pooling of token scores, in tokens; odd. @default {5} */
  poolSize?: number;
}

/** Settings of {@linkcode streamingLlm}. */
export interface StreamingLlmOptions {
  /** First tokens that always stay. @default {4} */
  sinks?: number;
}

/** A method with its settings, from one of the functions of this module. */
export type Method =
  | Readonly<{ name: "full" }>
  | Readonly<{ name: "streaming_llm" } & Required<StreamingLlmOptions>>
  | Readonly<{ name: "snapkv" } & Required<SnapKvOptions>>
  | Readonly<{ name: "pyramidkv" } & Required<SnapKvOptions>>
  | Readonly<{ name: "h2o" }>
  | Readonly<{ name: "chunkkv" } & Required<ChunkKvOptions>>;

/**
 * ChunkKV: neighbouring tokens form chunks; the chunks that the newest tokens attend to most stay
 * whole. Based on ChunkKV (arXiv 2502.00299); the defaults are the paper's.
 *
 * @param options Its settings.
 * @returns The method.
 * @throws {ChunkKvError} `invalid_argument` if a setting is out of its range.
 *
 * @example Chunks of 20 tokens, indices shared by pairs of layers
 * ```ts
 * import { chunkKv } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * const method = chunkKv({ chunkSize: 20, reuse: 2 });
 * assertEquals(method.chunkSize, 20);
 * assertEquals(method.window, 32);
 * ```
 */
export function chunkKv(options: ChunkKvOptions = {}): Extract<Method, { name: "chunkkv" }> {
  const { chunkSize = 10, window = 32, reduce = "sum", fill = "exact" } = options;
  const { reuse = 1, spread = 1 } = options;
  checkInteger("chunkSize", chunkSize, 1, MAX_INT32);
  checkInteger("window", window, 1, MAX_WINDOW);
  checkOneOf("reduce", reduce, CHUNK_REDUCES);
  checkOneOf("fill", fill, FILLS);
  checkInteger("reuse", reuse, 1, MAX_INT32);
  checkInteger("spread", spread, 1, MAX_SPREAD);
  return Object.freeze({ name: "chunkkv", chunkSize, window, reduce, fill, reuse, spread });
}

/**
 * SnapKV: each kv head keeps its own tokens with the most attention from the newest tokens, after
 * average pooling over neighbours. Based on SnapKV (arXiv 2404.14469).
 *
 * @param options Its settings.
 * @returns The method.
 * @throws {ChunkKvError} `invalid_argument` if a setting is out of its range.
 *
 * @example
 * ```ts
 * import { snapKv } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(snapKv({ poolSize: 7 }), { name: "snapkv", window: 32, poolSize: 7 });
 * ```
 */
export function snapKv(options: SnapKvOptions = {}): Extract<Method, { name: "snapkv" }> {
  return Object.freeze({ name: "snapkv", ...checkSnapKv(options) });
}

function checkSnapKv(options: SnapKvOptions): Required<SnapKvOptions> {
  const { window = 32, poolSize = 5 } = options;
  checkInteger("window", window, 1, MAX_WINDOW);
  checkInteger("poolSize", poolSize, 1, MAX_INT32);
  check(poolSize % 2 === 1, "poolSize to be odd", poolSize);
  return { window, poolSize };
}

/**
 * PyramidKV: SnapKV with budgets that fall linearly over the layers, in the mean the given one; see
 * {@linkcode layerBudget}. Only where layers are compressed together does one have a budget of its
 * own: a single layer keeps what it is told. On the CPU. Based on PyramidKV (arXiv 2406.02069).
 *
 * @param options Its settings, those of SnapKV.
 * @returns The method.
 * @throws {ChunkKvError} `invalid_argument` if a setting is out of its range.
 *
 * @example
 * ```ts
 * import { pyramidKv } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(pyramidKv(), { name: "pyramidkv", window: 32, poolSize: 5 });
 * ```
 */
export function pyramidKv(options: SnapKvOptions = {}): Extract<Method, { name: "pyramidkv" }> {
  return Object.freeze({ name: "pyramidkv", ...checkSnapKv(options) });
}

/**
 * H2O: half of the budget are each kv head's heavy hitters, the tokens with the most attention summed
 * over all queries, half the newest tokens. Its queries are those of the whole prompt: a `queryView`
 * whose `window` is the number of tokens. On the CPU. Based on H2O (arXiv 2306.14048).
 *
 * @returns The method.
 *
 * @example
 * ```ts
 * import { h2o } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(h2o(), { name: "h2o" });
 * ```
 */
export function h2o(): Extract<Method, { name: "h2o" }> {
  return Object.freeze({ name: "h2o" });
}

/**
 * StreamingLLM: the first tokens (attention sinks) and the newest ones fill the budget; reads
 * neither queries nor keys. Based on StreamingLLM (arXiv 2309.17453).
 *
 * @param options Its settings.
 * @returns The method.
 * @throws {ChunkKvError} `invalid_argument` if a setting is out of its range.
 *
 * @example
 * ```ts
 * import { streamingLlm } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(streamingLlm(), { name: "streaming_llm", sinks: 4 });
 * ```
 */
export function streamingLlm(
  options: StreamingLlmOptions = {},
): Extract<Method, { name: "streaming_llm" }> {
  const { sinks = 4 } = options;
  checkInteger("sinks", sinks, 0, MAX_INT32);
  return Object.freeze({ name: "streaming_llm", sinks });
}

/**
 * Keeps everything: the reference that the others are measured against. Needs no budget.
 *
 * @returns The method.
 *
 * @example
 * ```ts
 * import { full } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(full(), { name: "full" });
 * ```
 */
export function full(): Extract<Method, { name: "full" }> {
  return Object.freeze({ name: "full" });
}

/**
 * A method by its name, as a command line has it.
 *
 * @param name One of `methodNames()`.
 * @param options Settings of any method; each takes those that it knows.
 * @returns The method.
 * @throws {ChunkKvError} `invalid_argument` if there is no such method or a setting is out of range.
 *
 * @example
 * ```ts
 * import { methodByName } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(methodByName("snapkv", { window: 16 }).name, "snapkv");
 * ```
 */
export function methodByName(
  name: string,
  options: ChunkKvOptions & SnapKvOptions & StreamingLlmOptions = {},
): Method {
  checkOneOf("method", name, METHODS);
  switch (name) {
    case "full":
      return full();
    case "streaming_llm":
      return streamingLlm(options);
    case "snapkv":
      return snapKv(options);
    case "chunkkv":
      return chunkKv(options);
    case "h2o":
      return h2o();
    case "pyramidkv":
      return pyramidKv(options);
  }
}

/** Refuses what is no integer from `least` to `most`. */
export function checkInteger(name: string, value: number, least: number, most: number): void {
  const range = most === MAX_INT32 ? `of at least ${least}` : `from ${least} to ${most}`;
  check(
    Number.isInteger(value) && value >= least && value <= most,
    `${name} to be an integer ${range}`,
    value,
  );
}

function checkOneOf<Names extends Record<string, number>>(
  name: string,
  value: string,
  names: Names,
): asserts value is Extract<keyof Names, string> {
  check(
    Object.hasOwn(names, value),
    `${name} to be one of ${Object.keys(names).join(", ")}`,
    value,
  );
}
