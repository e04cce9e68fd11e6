/**
 * Budgets, and a method's settings as C takes them.
 *
 * @module
 */
import { CHUNK_REDUCES, FILLS, METHODS } from "./enums.ts";
import { native } from "./library.ts";
import { checkInteger, chunkKv, MAX_INT32, type Method, snapKv, streamingLlm } from "./methods.ts";
import { check } from "./status.ts";
import { packStruct, PARAMS } from "./structs.ts";

/** How many tokens stay: give one of the two; neither is needed for `full`. */
export interface BudgetOptions {
  /** Tokens kept per kv head, observation window included; at least 1. */
  budget?: number | undefined;
  /** Fraction of the longest sequence's tokens that is kept, in (0, 1]. */
  keep?: number | undefined;
}

/** What a model's attention does to its logits. */
export interface LogitOptions {
  /** `logits = scale * q.k`; 0 means `1 / sqrt(headDim)`. @default {0} */
  scale?: number | undefined;
  /** `logits = softcap * tanh(logits / softcap)`; 0 means none. @default {0} */
  logitSoftcap?: number | undefined;
}

/**
 * Resolves `budget` or `keep` to tokens.
 *
 * @param method Whose budget it is.
 * @param options One of `budget` and `keep`.
 * @param kvLen Tokens of the longest sequence.
 * @returns Tokens to keep: `budget`, or `floor(keep * kvLen)` but at least 1.
 * @throws {ChunkKvError} `invalid_argument` if both or neither are given or one is out of range.
 *
 * @example
 * ```ts
 * import { budgetFor, chunkKv } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(budgetFor(chunkKv(), { keep: 0.1 }, 3000), 300);
 * ```
 */
export function budgetFor(method: Method, options: BudgetOptions, kvLen: number): number {
  const { budget, keep } = options;
  check(
    budget === undefined || keep === undefined,
    "one of budget and keep",
    `budget ${budget} and keep ${keep}`,
  );
  if (budget !== undefined) {
    checkInteger("budget", budget, 1, MAX_INT32);
    return budget;
  }
  if (keep !== undefined) {
    check(
      typeof keep === "number" && keep > 0 && keep <= 1,
      "keep to be a fraction above 0 and at most 1",
      keep,
    );
    checkInteger("kvLen", kvLen, 0, MAX_INT32);
    return native().ckv_budget_for(keep, kvLen);
  }
  check(method.name === "full", `budget or keep for ${method.name}`, "neither");
  return Math.max(1, kvLen);
}

/**
 * Tokens that one layer of several keeps: the budget, which the layers of `pyramidkv` share out,
 * falling linearly from about twice as many to about none beside the window.
 *
 * @param method The method.
 * @param budget Tokens that layers keep on average.
 * @param kvLen Tokens of the sequence.
 * @param layer Which layer, from 0.
 * @param numLayers How many there are.
 * @returns Tokens to keep.
 * @throws {ChunkKvError} `invalid_argument` if there is no such layer or a number is out of range.
 *
 * @example
 * ```ts
 * import { layerBudget, pyramidKv } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * const budgets = [0, 1, 2].map((layer) => layerBudget(pyramidKv(), 132, 1000, layer, 3));
 * assertEquals(budgets, [227, 132, 37]);
 * ```
 */
export function layerBudget(
  method: Method,
  budget: number,
  kvLen: number,
  layer: number,
  numLayers: number,
): number {
  checkInteger("budget", budget, 1, MAX_INT32);
  checkInteger("kvLen", kvLen, 0, MAX_INT32);
  checkInteger("numLayers", numLayers, 1, MAX_INT32);
  checkInteger("layer", layer, 0, numLayers - 1);
  return native().ckv_layer_budget(packParams(method, budget), kvLen, layer, numLayers);
}

/**
 * Packs a `ckv_params`.
 *
 * @param method The method with its settings.
 * @param budget Tokens to keep.
 * @param logits What the model's attention does to its logits.
 * @returns The packed struct.
 * @throws {ChunkKvError} `invalid_argument` if a value is out of its range.
 */
export function packParams(
  method: Method,
  budget: number,
  logits: LogitOptions = {},
): Uint8Array<ArrayBuffer> {
  const { scale = 0, logitSoftcap = 0 } = logits;
  checkNotNegative("scale", scale);
  checkNotNegative("logitSoftcap", logitSoftcap);
  const chunk = method.name === "chunkkv" ? method : chunkKv();
  const isSnap = method.name === "snapkv" || method.name === "pyramidkv";
  const snap = isSnap ? method : snapKv();
  return packStruct(PARAMS, {
    method: METHODS[method.name],
    budget,
    window: isSnap ? snap.window : chunk.window,
    chunk_size: chunk.chunkSize,
    chunk_reduce: CHUNK_REDUCES[chunk.reduce],
    fill: FILLS[chunk.fill],
    layer_reuse: chunk.reuse,
    pool_size: snap.poolSize,
    num_sinks: (method.name === "streaming_llm" ? method : streamingLlm()).sinks,
    scale,
    logit_softcap: logitSoftcap,
    spread: chunk.spread,
  });
}

function checkNotNegative(name: string, value: number): void {
  check(
    Number.isFinite(value) && value >= 0,
    `${name} to be a finite number of at least 0`,
    value,
  );
}
