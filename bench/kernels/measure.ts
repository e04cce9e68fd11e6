/**
 * Times the stages through the library's own functions: structs packed once, layers in turn.
 *
 * @module
 */
import { budgetFor, chunkKv, type Compressor, Kept, Scores } from "chunkkv";
import { native, readText } from "../../ffi/library.ts";
import { Held, packKept, packKv, packQueries, packScores } from "../../ffi/pack.ts";
import { packParams } from "../../ffi/params.ts";
import { type Limits, measureRuns } from "./limits.ts";
import { cacheBytes, type Case, makeWorkload } from "./workload.ts";

/** Shortest and median time of a stage. */
export interface Timing {
  /** Milliseconds of the shortest run. */
  ms: number;
  /** Milliseconds of the median run. */
  median_ms: number;
}

/** What the stages of a case took. */
export interface Times {
  score: Timing;
  select: Timing;
  compact: Timing;
  /** Milliseconds of the plainest copy of the very rows that compaction moves. */
  runs_ms: number;
  /** Tokens kept of all sequences. */
  kept: number;
}

/** One stage of one case, on any device. */
export interface StageRow {
  shape: string;
  n: number;
  batch: number;
  dtype: string;
  layout: string;
  /** Bytes that must move: keys read once, scores read once, kept rows read and written. */
  bytes: number;
  /** GFLOP of the queries' products with the keys, counted once. */
  gflop: number | null;
  gb_s: number;
  gflop_s: number | null;
  limit_ms: number;
  /** Limit time / our time. */
  of_limit: number;
}

/** One stage of one case on the CPU. */
export interface KernelRow extends StageRow, Timing {
  threads: number;
  isa: string;
  stage: "score" | "select" | "compact" | "sum";
  /** Time of the plainest copy of the very same rows / our time; null where nothing is copied. */
  of_runs: number | null;
}

/**
 * Times score, select and compact (keys and values, in place) of one layer.
 *
 * @param compressor Threads and instruction set.
 * @param what The case.
 * @param seconds About how long each stage is repeated.
 */
export function timeStages(compressor: Compressor, what: Case, seconds: number): Times {
  const { queries, layers } = makeWorkload(what, 128 * 2 ** 20);
  const method = chunkKv({ chunkSize: what.chunkSize, window: what.window });
  const params = packParams(method, budgetFor(method, { keep: what.keep }, what.n));
  const scores = new Scores(what.batch, 1, what.n);
  const kept = new Kept(what.batch, 1, native().ckv_kept_capacity(params, what.n));
  const held = new Held();
  const packed = {
    queries: packQueries(queries, held),
    scores: packScores(scores, held),
    kept: packKept([kept], held),
    layers: layers.map(({ keys, values }) => [packKv(keys, held), packKv(values, held)] as const),
  };
  const { ckv_score, ckv_select, ckv_compact } = native();
  const context = compressor.unsafeHandle;
  const call = (status: number) => {
    if (status !== 0) throw new Error(readText(native().ckv_context_error(context)) ?? "");
  };
  try {
    const score = repeat(layers.length, seconds, (layer) => {
      const [keys] = packed.layers[layer]!;
      call(ckv_score(context, params, packed.queries, keys, packed.scores));
    });
    const select = repeat(1, Math.min(seconds, 0.2), () => {
      call(ckv_select(context, params, packed.scores, packed.kept));
    });
    const compact = repeat(layers.length, seconds, (layer) => {
      for (const view of packed.layers[layer]!) call(ckv_compact(context, view, null, packed.kept));
    });
    const runs_ms = measureRuns(compressor.threads, packed.layers.flat(), packed.kept, seconds / 3);
    return { score, select, compact, runs_ms, kept: kept.lens.reduce((sum, len) => sum + len, 0) };
  } finally {
    held.release();
  }
}

/** Runs `work` on one layer after the other: once to warm up, then for a while. */
function repeat(layers: number, seconds: number, work: (layer: number) => void): Timing {
  const times: number[] = [];
  work(0);
  const end = performance.now() + seconds * 1000;
  for (let run = 1; times.length < 2 || (performance.now() < end && times.length < 1000); run++) {
    const start = performance.now();
    work(run % layers);
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  return { ms: times[0]!, median_ms: times[times.length >> 1]! };
}

/**
 * Rows of a case: what the stages took against what the machine can do.
 *
 * @param what The case.
 * @param times What its stages took.
 * @param limits The machine's limits.
 * @param setting Threads and instruction set.
 */
export function rowsOf(
  what: Case,
  times: Times,
  limits: Limits,
  setting: { threads: number; isa: string },
): KernelRow[] {
  const { shape, n, batch, dtype, layout } = what;
  const gflop = 2 * batch * what.heads * what.window * n * what.headDim / 1e9;
  // The queries are bf16 then, too.
  const peak = dtype === "bf16"
    ? Math.max(limits.fma_gflop_s, limits.dot_gflop_s)
    : limits.fma_gflop_s;
  const keyBytes = cacheBytes(what);
  const movedBytes = 2 * 2 * keyBytes * times.kept / (n * batch);
  const scoreBytes = 4 * n * batch;
  const milliseconds = (bytes: number, gbs: number) => bytes / gbs / 1e6;
  const stages = {
    score: {
      bytes: keyBytes,
      gflop,
      limit_ms: Math.max(gflop / peak * 1000, milliseconds(keyBytes, limits.read_gb_s)),
    },
    select: {
      bytes: scoreBytes,
      gflop: null,
      limit_ms: milliseconds(scoreBytes, limits.read_gb_s),
    },
    compact: {
      bytes: movedBytes,
      gflop: null,
      limit_ms: milliseconds(movedBytes, limits.copy_gb_s),
    },
  };
  const row = (
    stage: KernelRow["stage"],
    { ms, median_ms }: Timing,
    work: { bytes: number; gflop: number | null; limit_ms: number },
  ): KernelRow => ({
    ...{ shape, n, batch, dtype, layout, ...setting, stage, ms, median_ms, ...work },
    gb_s: work.bytes / ms / 1e6,
    gflop_s: work.gflop === null ? null : work.gflop / ms * 1000,
    of_limit: work.limit_ms / ms,
    of_runs: stage === "compact" ? times.runs_ms / ms : null,
  });
  const names = ["score", "select", "compact"] as const;
  const sum = (value: (name: typeof names[number]) => number) =>
    names.reduce((total, name) => total + value(name), 0);
  return [
    ...names.map((name) => row(name, times[name], stages[name])),
    row("sum", {
      ms: sum((name) => times[name].ms),
      median_ms: sum((name) => times[name].median_ms),
    }, {
      bytes: sum((name) => stages[name].bytes),
      gflop,
      limit_ms: sum((name) => stages[name].limit_ms),
    }),
  ];
}
