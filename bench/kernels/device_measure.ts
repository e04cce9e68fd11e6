/**
 * Times the stages on a GPU: calls are queued, then waited for together.
 *
 * @module
 */
import {
  budgetFor,
  chunkKv,
  type Compressor,
  DeviceBuffer,
  DeviceKept,
  DeviceScores,
} from "chunkkv";
import { native, readText } from "../../ffi/library.ts";
import { Held, packKept, packKv, packQueries, packScores } from "../../ffi/pack.ts";
import { packParams } from "../../ffi/params.ts";
import { unwrap } from "../../ffi/status.ts";
import { LAYER, packStructs } from "../../ffi/structs.ts";
import { DeviceWorkload, measureCopy, TOGETHER } from "./device_workload.ts";
import type { StageRow } from "./measure.ts";
import { cacheBytes, type Case } from "./workload.ts";

/** How long measurements are. */
export interface Patience {
  /** Milliseconds of one measurement, about. */
  measurement: number;
  /** Milliseconds of all measurements of a stage, about. */
  stage: number;
  /** Bytes of the copy that the limits come from. */
  copyBytes: number;
}

/** A measurement of 50 ms, and copies larger than any cache. */
export const USUAL = { measurement: 50, copyBytes: 256 * 2 ** 20 } as const;

const FEWEST = 3, MOST = 100;
const MOST_CALLS = 2 ** 15;

/** One call of a stage. */
export interface DeviceTiming {
  /** Milliseconds of a call in the median measurement. */
  ms: number;
  /** Milliseconds of a call in the shortest measurement. */
  shortest_ms: number;
}

/** What the stages of a case took. */
export interface DeviceTimes {
  score: DeviceTiming;
  /** From queries and keys to chunk scores. */
  scoreChunks: DeviceTiming;
  select: DeviceTiming;
  compact: DeviceTiming;
  /** Of one of the layers that are compressed together. */
  together: DeviceTiming;
  /** Tokens kept of all sequences of a layer. */
  kept: number;
}

/** One stage of one case on a GPU. */
export interface DeviceRow extends StageRow, DeviceTiming {
  stage: "score" | "score chunks" | "select" | "compact" | "sum" | "all layers";
}

/** The GPU's limit: GB/s of copying its memory, read and written together. */
export function copyLimit(compressor: Compressor<"cuda">, patience: Patience): number {
  const time = (on: Compressor<"cuda">, call: () => void) => queued(on, patience, call).shortest_ms;
  return measureCopy(compressor, time, patience.copyBytes);
}

/**
 * Times score, select and compact (keys and values, in place) of one layer, and `compress` of several
 * layers together. Structs are packed and results allocated before.
 *
 * @param compressor On the GPU.
 * @param what The case.
 * @param patience How long measurements are.
 * @throws {ChunkKvError} `out_of_memory` if the GPU has less than the layers take.
 */
export function timeDeviceStages(
  compressor: Compressor<"cuda">,
  what: Case,
  patience: Patience,
): DeviceTimes {
  using workload = new DeviceWorkload(what);
  const held = new Held();
  try {
    const { queries, layers } = workload;
    const method = chunkKv({ chunkSize: what.chunkSize, window: what.window });
    const params = packParams(method, budgetFor(method, { keep: what.keep }, what.n));
    const { batch, n } = what;
    using scores = new DeviceScores(batch, 1, n);
    const chunks = batch * Math.ceil(Math.max(n - what.window, 0) / what.chunkSize);
    using chunkScores = new DeviceBuffer(4 * chunks);
    const chunkAddress = Deno.UnsafePointer.create(held.address(chunkScores));
    const capacity = native().ckv_kept_capacity(params, n);
    const kept = Array.from({ length: TOGETHER }, () => {
      const one = new DeviceKept(batch, 1, capacity);
      held.own(one);
      return one;
    });
    const first = kept[0]!;
    const packed = {
      queries: packQueries(queries[0], held),
      scores: packScores(scores, held),
      kept: packKept([first], held),
      all: packKept(kept, held),
      layers: layers.map(({ keys, values }) => [packKv(keys, held), packKv(values, held)] as const),
    };
    const numGroups = Math.floor(layers.length / TOGETHER);
    const groups = queries.map((view) => packQueries(view, held)).flatMap((view) =>
      Array.from({ length: numGroups }, (_, group) =>
        packStructs(
          LAYER,
          packed.layers.slice(group * TOGETHER, (group + 1) * TOGETHER).map(([keys, values]) => ({
            queries: held.address(view),
            keys: held.address(keys),
            values: held.address(values),
          })),
        ))
    );

    const { ckv_score, ckv_score_chunks, ckv_select, ckv_compact, ckv_compress } = native();
    const context = compressor.unsafeHandle;
    const call = (status: number) => {
      unwrap(status, () => readText(native().ckv_context_error(context)) ?? "");
    };
    const turns = <Item>(items: readonly Item[], work: (item: Item) => void) => {
      let turn = 0;
      return queued(compressor, patience, () => work(items[turn++ % items.length]!));
    };
    const score = turns(packed.layers, ([keys]) => {
      call(ckv_score(context, params, packed.queries, keys, packed.scores));
    });
    const scoreChunks = turns(packed.layers, ([keys]) => {
      call(ckv_score_chunks(context, params, packed.queries, keys, chunkAddress, BigInt(chunks)));
    });
    const select = turns([packed.kept], (chosen) => {
      call(ckv_select(context, params, packed.scores, chosen));
    });
    const compact = turns(packed.layers, (layer) => {
      for (const view of layer) call(ckv_compact(context, view, null, packed.kept));
    });
    const count = first.download().lens.reduce((sum, len) => sum + len, 0);
    const together = turns(groups, (group) => {
      call(ckv_compress(context, params, group, TOGETHER, packed.all));
    });
    const { ms, shortest_ms } = together;
    return {
      ...{ score, scoreChunks, select, compact, kept: count },
      together: { ms: ms / TOGETHER, shortest_ms: shortest_ms / TOGETHER },
    };
  } finally {
    held.release();
  }
}

/** Queues calls for a while and waits for them, several times; the first ones only warm up. */
function queued(
  compressor: Compressor<"cuda">,
  { measurement, stage }: Patience,
  call: () => void,
): DeviceTiming {
  const run = (calls: number): number => {
    const start = performance.now();
    for (let i = 0; i < calls; i++) call();
    compressor.finish();
    return performance.now() - start;
  };
  run(1);
  let calls = 1, took = run(1);
  while (took < measurement / 2 && calls < MOST_CALLS) took = run(calls *= 2);
  calls = Math.max(1, Math.min(MOST_CALLS, Math.round(calls * measurement / took)));
  const times: number[] = [];
  const end = performance.now() + stage;
  while (times.length < FEWEST || (performance.now() < end && times.length < MOST)) {
    times.push(run(calls) / calls);
  }
  times.sort((a, b) => a - b);
  return { ms: times[times.length >> 1]!, shortest_ms: times[0]! };
}

/**
 * Rows of a case: what the stages took against what the GPU can do.
 *
 * @param what The case.
 * @param times What its stages took.
 * @param copy GB/s of copying its memory, read and written together.
 */
export function deviceRowsOf(what: Case, times: DeviceTimes, copy: number): DeviceRow[] {
  const { shape, n, batch, dtype, layout } = what;
  const gflop = 2 * batch * what.heads * what.window * n * what.headDim / 1e9;
  const keyBytes = cacheBytes(what);
  const bytes = {
    score: keyBytes,
    select: 4 * n * batch,
    compact: 2 * 2 * keyBytes * times.kept / (n * batch),
  };
  const row = (
    stage: DeviceRow["stage"],
    { ms, shortest_ms }: DeviceTiming,
    moved: number,
    products: number | null,
  ): DeviceRow => {
    const limit_ms = moved / copy / 1e6;
    return {
      ...{ shape, n, batch, dtype, layout, stage, ms, shortest_ms, bytes: moved, gflop: products },
      gb_s: moved / ms / 1e6,
      gflop_s: products === null ? null : products / ms * 1000,
      limit_ms,
      of_limit: limit_ms / ms,
    };
  };
  const { score, select, compact } = times;
  const all = bytes.score + bytes.select + bytes.compact;
  const sum = {
    ms: score.ms + select.ms + compact.ms,
    shortest_ms: score.shortest_ms + select.shortest_ms + compact.shortest_ms,
  };
  return [
    row("score", score, bytes.score, gflop),
    row("score chunks", times.scoreChunks, bytes.score, gflop),
    row("select", select, bytes.select, null),
    row("compact", compact, bytes.compact, null),
    row("sum", sum, all, gflop),
    row("all layers", times.together, all, gflop),
  ];
}
