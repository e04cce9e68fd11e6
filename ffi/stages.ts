/**
 * Each stage as the native calls that it makes, for a blocking or a nonblocking caller to run.
 *
 * @module
 */
import { DeviceBuffer } from "./device_buffer.ts";
import type { KvView } from "./kv_view.ts";
import type { QueryView } from "./query_view.ts";
import { native } from "./library.ts";
import { type Held, packKept, packKv, packQueries, packScores } from "./pack.ts";
import type { Method } from "./methods.ts";
import { budgetFor, type BudgetOptions, type LogitOptions, packParams } from "./params.ts";
import type { AnyKept, AnyScores, Place } from "./place.ts";
import { check } from "./status.ts";
import { LAYER, packStructs } from "./structs.ts";

/** One native call on a context. */
export interface Step {
  /** The function. */
  name:
    | "ckv_score"
    | "ckv_chunk_scores"
    | "ckv_score_chunks"
    | "ckv_select"
    | "ckv_compact"
    | "ckv_compress"
    | "ckv_context_finish";
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

/** Chunk scores from token scores. */
export interface ChunkScoresFromScoresOptions {
  /** Token scores. */
  scores: AnyScores;
  /** The method that has chunks. */
  method: Extract<Method, { name: "chunkkv" }>;
}

/** Chunk scores from queries and keys: token scores need no room of the caller's. */
export interface ChunkScoresFromKeysOptions extends LogitOptions {
  /** Queries of the observation window. */
  queries: QueryView;
  /** Keys of the layer. */
  keys: KvView;
  /** The method that has chunks. */
  method: Extract<Method, { name: "chunkkv" }>;
}

/** What chunk scores come from. */
export type ChunkScoresOptions = ChunkScoresFromScoresOptions | ChunkScoresFromKeysOptions;

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
  scores: AnyScores;
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
  kept: AnyKept;
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
export function* scoreSteps(options: ScoreOptions, place: Place, held: Held): Steps<AnyScores> {
  const { queries, keys, method } = options;
  const params = packParams(method, 1, options); // scores do not depend on the budget
  const heads = native().ckv_score_heads(params, keys.numKvHeads);
  check(heads > 0, "a method that scores tokens", method.name);
  const packedKeys = packKv(keys, held);
  const scores = held.own(place.scores({ ...keys, numHeads: heads }));
  yield {
    name: "ckv_score",
    args: [params, packQueries(queries, held), packedKeys, packScores(scores, held)],
  };
  return held.disown(scores);
}

/** Token scores, or queries and keys, to chunk scores. */
export function* chunkScoreSteps(
  options: ChunkScoresOptions,
  place: Place,
  held: Held,
): Steps<Float32Array<ArrayBuffer>[]> {
  const { method } = options;
  check(method.name === "chunkkv", "a method that has chunks", method.name);
  const { window, chunkSize } = method;
  const chunksOf = (tokens: number) => Math.ceil(Math.max(tokens - window, 0) / chunkSize);
  const source = "scores" in options ? options.scores : options.keys;
  const maxChunks = chunksOf(source.kvLen);
  const count = source.batch * maxChunks;
  const memory = place.floats(count);
  held.own(memory);
  const address = Deno.UnsafePointer.create(held.address(memory));
  if ("scores" in options) {
    yield {
      name: "ckv_chunk_scores",
      args: [packParams(method, 1), packScores(options.scores, held), address, BigInt(count)],
    };
  } else {
    const { queries, keys } = options;
    const params = packParams(method, 1, options);
    yield {
      name: "ckv_score_chunks",
      args: [params, packQueries(queries, held), packKv(keys, held), address, BigInt(count)],
    };
  }
  const data = memory instanceof DeviceBuffer
    ? memory.downloadInto(new Float32Array(count))
    : memory;
  const kvLens = lensOf(source);
  return Array.from({ length: source.batch }, (_, b) => {
    const begin = b * maxChunks;
    return data.subarray(begin, begin + chunksOf(kvLens?.[b] ?? source.kvLen));
  });
}

/** Queries and keys, or token scores, to kept indices. */
export function* selectSteps(options: SelectOptions, place: Place, held: Held): Steps<AnyKept> {
  const { method } = options;
  const source = "scores" in options ? options.scores : options.keys;
  const budget = budgetFor(method, options, longest(source));
  let scores: AnyScores;
  if ("scores" in options) {
    scores = options.scores;
  } else if (native().ckv_score_heads(packParams(method, budget), 1) > 0) {
    const { queries, keys } = options;
    check(queries !== undefined, `queries for ${method.name}`, "none");
    scores = yield* scoreSteps({ ...options, queries, keys }, place, held);
  } else {
    scores = place.scores({ ...options.keys, numHeads: 0 });
  }
  if (!("scores" in options)) held.own(scores);
  const params = packParams(method, budget);
  const kept = held.own(place.kept(
    scores.batch,
    native().ckv_kept_heads(params, scores.numHeads),
    native().ckv_kept_capacity(params, scores.kvLen),
  ));
  yield { name: "ckv_select", args: [params, packScores(scores, held), packKept([kept], held)] };
  return held.disown(kept);
}

/** Rows moved. */
export function* compactSteps(
  options: CompactOptions,
  place: Place,
  held: Held,
): Steps<void> {
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
    const nothing = held.own(place.kept(kept.batch, kept.numHeads, 0));
    const none = packKept([nothing], held);
    yield { name: "ckv_compact", args: [valuesFrom, valuesTo ?? null, none] };
  }
  if (keysFrom) yield { name: "ckv_compact", args: [keysFrom, keysTo ?? null, packedKept] };
  if (valuesFrom) yield { name: "ckv_compact", args: [valuesFrom, valuesTo ?? null, packedKept] };
}

/** All stages for all layers. */
export function* compressSteps(
  options: CompressOptions,
  place: Place,
  held: Held,
): Steps<AnyKept[]> {
  const { layers, method } = options;
  const first = layers[0];
  if (first === undefined) return [];
  const { batch, numKvHeads, kvLen } = first.keys;
  const params = packParams(method, budgetFor(method, options, longest(first.keys)), options);
  const heads = native().ckv_kept_heads(params, numKvHeads);
  const capacity = native().ckv_kept_capacity(params, kvLen);
  const kept = layers.map(() => held.own(place.kept(batch, heads, capacity)));
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
  return kept.map((one) => held.disown(one));
}

/** Queued work done. */
export function* finishSteps(): Steps<void> {
  yield { name: "ckv_context_finish", args: [] };
}

type Sequences = Pick<KvView, "kvLen" | "kvLens" | "batch">;

// On a GPU lengths are out of sight; kvLen is the most of any.
function longest(view: Sequences): number {
  const kvLens = view.kvLens instanceof DeviceBuffer ? undefined : lensOf(view);
  return kvLens ? Math.max(0, ...kvLens) : view.kvLen;
}

function lensOf({ kvLens, batch }: Sequences): Int32Array | undefined {
  if (kvLens instanceof DeviceBuffer) return kvLens.downloadInto(new Int32Array(batch));
  return kvLens?.subarray(0, batch);
}

function checkSameSequences(name: string, view: KvView, like: KvView): void {
  check(view.batch === like.batch, `${name} of ${like.batch} sequences`, view.batch);
  check(
    view.numKvHeads === like.numKvHeads,
    `${name} of ${like.numKvHeads} kv heads`,
    view.numKvHeads,
  );
  if (like.kvLens instanceof DeviceBuffer && like.kvLens === view.kvLens) return;
  const [ownLens, likeLens] = [lensOf(view), lensOf(like)];
  for (let b = 0; b < like.batch; b++) {
    const expected = likeLens?.[b] ?? like.kvLen;
    const found = ownLens?.[b] ?? view.kvLen;
    check(found === expected, `sequence ${b} of ${name} to have ${expected} tokens`, found);
  }
}
