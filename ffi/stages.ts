/**
 * Each stage as the native calls that it makes, for a blocking or a nonblocking caller to run.
 *
 * @module
 */
import { Kept } from "./kept.ts";
import type { KvView } from "./kv_view.ts";
import type { QueryView } from "./query_view.ts";
import { native } from "./library.ts";
import { type Held, packKept, packKv, packQueries, packScores } from "./pack.ts";
import {
  budgetFor,
  type BudgetOptions,
  type LogitOptions,
  type Method,
  packParams,
} from "./params.ts";
import { Scores } from "./scores.ts";
import { check } from "./status.ts";
import { LAYER, packStructs } from "./structs.ts";

/** One native call on a context. */
export interface Step {
  /** The function. */
  name: "ckv_score" | "ckv_chunk_scores" | "ckv_select" | "ckv_compact" | "ckv_compress";
  /** Its arguments after the context. */
  args: (Uint8Array<ArrayBuffer> | Deno.PointerValue | number | bigint)[];
}

/** Native calls in order, then a result. */
export type Steps<Result> = Generator<Step, Result, void>;

/** What scoring takes. */
export interface ScoreOptions extends LogitOptions {
  /** Queries of the observation window. */
  queries: QueryView;
  /** Keys of the layer. */
  keys: KvView;
  /** How tokens are chosen, and so how they are scored. */
  method: Method;
}

/** What chunk scores come from. */
export interface ChunkScoresOptions {
  /** Token scores. */
  scores: Scores;
  /** The method that has chunks. */
  method: Extract<Method, { name: "chunkkv" }>;
}

/** Selection from queries and keys. */
export interface SelectFromKeysOptions extends BudgetOptions, LogitOptions {
  /** How tokens are chosen. */
  method: Method;
  /** Queries of the observation window; methods that do not score do without. */
  queries?: QueryView | undefined;
  /** Keys of the layer. */
  keys: KvView;
}

/** Selection from token scores. */
export interface SelectFromScoresOptions extends BudgetOptions {
  /** How tokens are chosen. */
  method: Method;
  /** Token scores. */
  scores: Scores;
}

/** What selection takes. */
export type SelectOptions = SelectFromKeysOptions | SelectFromScoresOptions;

/** What compaction takes. */
export interface CompactOptions {
  /** Keys of the layer. */
  keys?: KvView | undefined;
  /** Values of the layer. */
  values?: KvView | undefined;
  /** What to keep. */
  kept: Kept;
  /** Where the rows go: memory apart from their own. Left out: in place. */
  to?: { keys?: KvView | undefined; values?: KvView | undefined } | undefined;
}

/** One layer of {@linkcode CompressOptions}. */
export interface CompressLayer {
  /** Queries of the observation window; a layer that reuses indices does without. */
  queries?: QueryView | undefined;
  /** Keys of the layer. */
  keys: KvView;
  /** Values of the layer; none where they are a view of the keys. */
  values?: KvView | undefined;
}

/** What compression of a whole model takes. */
export interface CompressOptions extends BudgetOptions, LogitOptions {
  /** The layers in order, all of the same sequences. */
  layers: readonly CompressLayer[];
  /** How tokens are chosen. */
  method: Method;
}

/** Queries and keys to token scores. */
export function* scoreSteps(options: ScoreOptions, held: Held): Steps<Scores> {
  const { queries, keys, method } = options;
  const params = packParams(method, 1, options); // scores do not depend on the budget
  const heads = native().ckv_score_heads(params, keys.numKvHeads);
  check(heads > 0, "a method that scores tokens", method.name);
  const packedKeys = packKv(keys, held);
  const scores = new Scores(keys.batch, heads, keys.kvLen, keys.kvLens);
  yield {
    name: "ckv_score",
    args: [params, packQueries(queries, held), packedKeys, packScores(scores, held)],
  };
  return scores;
}

/** Token scores to chunk scores. */
export function* chunkScoreSteps(
  { scores, method }: ChunkScoresOptions,
  held: Held,
): Steps<Float32Array<ArrayBuffer>[]> {
  check(method.name === "chunkkv", "a method that has chunks", method.name);
  const { window, chunkSize } = method;
  const chunksOf = (tokens: number) => Math.ceil(Math.max(tokens - window, 0) / chunkSize);
  const maxChunks = chunksOf(scores.kvLen);
  const data = new Float32Array(scores.batch * maxChunks);
  const address = Deno.UnsafePointer.create(held.address(data));
  yield {
    name: "ckv_chunk_scores",
    args: [packParams(method, 1), packScores(scores, held), address, BigInt(data.length)],
  };
  return Array.from({ length: scores.batch }, (_, b) => {
    const begin = b * maxChunks;
    return data.subarray(begin, begin + chunksOf(scores.kvLens?.[b] ?? scores.kvLen));
  });
}

/** Queries and keys, or token scores, to kept indices. */
export function* selectSteps(options: SelectOptions, held: Held): Steps<Kept> {
  const { method } = options;
  const source = "scores" in options ? options.scores : options.keys;
  const budget = budgetFor(method, options, longest(source));
  let scores: Scores;
  if ("scores" in options) {
    scores = options.scores;
  } else if (native().ckv_score_heads(packParams(method, budget), 1) > 0) {
    const { queries, keys } = options;
    check(queries !== undefined, `queries for ${method.name}`, "none");
    scores = yield* scoreSteps({ ...options, queries, keys }, held);
  } else {
    scores = new Scores(source.batch, 0, source.kvLen, source.kvLens);
  }
  const params = packParams(method, budget);
  const kept = new Kept(
    scores.batch,
    native().ckv_kept_heads(params, scores.numHeads),
    native().ckv_kept_capacity(params, scores.kvLen),
  );
  yield { name: "ckv_select", args: [params, packScores(scores, held), packKept([kept], held)] };
  return kept;
}

/** Rows moved. */
export function* compactSteps(options: CompactOptions, held: Held): Steps<void> {
  const { keys, values, kept, to } = options;
  check(keys !== undefined || values !== undefined, "keys or values to compact", "neither");
  const both = keys !== undefined && values !== undefined;
  if (both) checkSameSequences("values", values, keys);
  if (to) {
    check(
      (to.keys === undefined) === (keys === undefined),
      "to.keys where there are keys",
      to.keys,
    );
    check(
      (to.values === undefined) === (values === undefined),
      "to.values where there are values",
      to.values,
    );
    if (to.keys && to.values) checkSameSequences("to.values", to.values, to.keys);
  }
  const packedKept = packKept([kept], held);
  const source = (view: KvView | undefined) => view ? [packKv(view, held)] : [];
  const [keysFrom, keysTo] = [...source(keys), ...source(to?.keys)];
  const [valuesFrom, valuesTo] = [...source(values), ...source(to?.values)];
  if (keysFrom && valuesFrom) {
    // Keeping nothing moves nothing, but finds what is wrong with the values before keys move.
    const none = packKept([new Kept(kept.batch, kept.numHeads, 0)], held);
    yield { name: "ckv_compact", args: [valuesFrom, valuesTo ?? null, none] };
  }
  if (keysFrom) yield { name: "ckv_compact", args: [keysFrom, keysTo ?? null, packedKept] };
  if (valuesFrom) yield { name: "ckv_compact", args: [valuesFrom, valuesTo ?? null, packedKept] };
}

/** All stages for all layers. */
export function* compressSteps(options: CompressOptions, held: Held): Steps<Kept[]> {
  const { layers, method } = options;
  const first = layers[0];
  if (first === undefined) return [];
  const { batch, numKvHeads, kvLen } = first.keys;
  const params = packParams(method, budgetFor(method, options, longest(first.keys)), options);
  const heads = native().ckv_kept_heads(params, numKvHeads);
  const capacity = native().ckv_kept_capacity(params, kvLen);
  const kept = layers.map(() => new Kept(batch, heads, capacity));
  const packedLayers = packStructs(
    LAYER,
    layers.map(({ queries, keys, values }) => ({
      queries: held.address(queries && packQueries(queries, held)),
      keys: held.address(packKv(keys, held)),
      values: held.address(values && packKv(values, held)),
    })),
  );
  yield {
    name: "ckv_compress",
    args: [params, packedLayers, layers.length, packKept(kept, held)],
  };
  return kept;
}

function longest({ kvLen, kvLens, batch }: Pick<KvView, "kvLen" | "kvLens" | "batch">): number {
  return kvLens ? Math.max(0, ...kvLens.subarray(0, batch)) : kvLen;
}

function checkSameSequences(name: string, view: KvView, like: KvView): void {
  check(view.batch === like.batch, `${name} of ${like.batch} sequences`, view.batch);
  check(
    view.numKvHeads === like.numKvHeads,
    `${name} of ${like.numKvHeads} kv heads`,
    view.numKvHeads,
  );
  for (let b = 0; b < like.batch; b++) {
    const expected = like.kvLens?.[b] ?? like.kvLen;
    const found = view.kvLens?.[b] ?? view.kvLen;
    check(found === expected, `sequence ${b} of ${name} to have ${expected} tokens`, found);
  }
}
