/**
 * `kernels` on a GPU: measured, then told.
 *
 * @module
 */
import { ChunkKvError, Compressor, describeDevice } from "chunkkv";
import { Progress } from "../report/progress.ts";
import { decimals, formatTable } from "../report/table.ts";
import {
  copyLimit,
  type DeviceRow,
  deviceRowsOf,
  type DeviceTimes,
  type Patience,
  timeDeviceStages,
} from "./device_measure.ts";
import { TOGETHER } from "./device_workload.ts";
import type { Case } from "./workload.ts";

/** What came out. */
export interface DeviceOutcome {
  /** What the GPU is. */
  device: string;
  limits: { copy_gb_s: number };
  rows: DeviceRow[];
  /** Cases that the GPU has no memory for. */
  left: Case[];
}

/**
 * Measures cases on a GPU.
 *
 * @param cases The cases.
 * @param patience How long measurements are.
 * @param skip Leave out what there is no memory for, instead of failing.
 * @throws {ChunkKvError} `unsupported` if there is no GPU, and why; `out_of_memory`.
 */
export function measureOnDevice(cases: Case[], patience: Patience, skip: boolean): DeviceOutcome {
  const device = describeDevice("cuda");
  using compressor = new Compressor({ device: "cuda" });
  const before = copyLimit(compressor, patience);
  const timed: { what: Case; times: DeviceTimes }[] = [];
  const left: Case[] = [];
  {
    using progress = new Progress("measuring", cases.length, "cases");
    for (const what of cases) {
      try {
        timed.push({ what, times: timeDeviceStages(compressor, what, patience) });
      } catch (error) {
        const full = error instanceof ChunkKvError && error.code === "out_of_memory";
        if (!full || !skip) throw error;
        left.push(what);
      }
      progress.update(timed.length + left.length);
    }
  }
  // Another process may have held the GPU the first time.
  const copy = Math.max(before, copyLimit(compressor, patience));
  const rows = timed.flatMap(({ what, times }) => deviceRowsOf(what, times, copy));
  return { device, limits: { copy_gb_s: copy }, rows, left };
}

/** The table and what its numbers are. */
export function deviceReport(
  { device, limits, rows, left }: DeviceOutcome,
  { layout, keep, window, chunkSize }: Pick<Case, "layout" | "keep" | "window" | "chunkSize">,
): string {
  return [
    formatTable(rows, COLUMNS),
    device,
    `${layout}, keep ${keep}, window ${window}, chunks of ${chunkSize}`,
    `limit here: on-device copy ${decimals(limits.copy_gb_s, 1)} GB/s (read + written)`,
    NOTES,
    ...left.map(({ shape, n, batch }) =>
      `left out, more than the device's memory: ${shape}, n ${n}, batch ${batch}`
    ),
  ].join("\n");
}

const NOTES = `
of limit = limit ms / ms; ms is a call's share of calls queued one after the other and waited for together, \
median of several such times, on layers that take turns so that rows come from memory
score: the keys read once at the copy rate; the products QK^T on tensor cores are not counted
select: the token scores read once, which may still be in the cache
compact: kept rows of keys and values, in place, each byte read once and written once
sum: the three after each other; all layers: one call of compress for ${TOGETHER} layers, per layer`
  .trim();

const RIGHT = { align: "right" as const };
const COLUMNS = [
  { heading: "shape", text: (row: DeviceRow) => row.shape },
  { heading: "n", text: (row: DeviceRow) => `${row.n}`, ...RIGHT },
  { heading: "batch", text: (row: DeviceRow) => `${row.batch}`, ...RIGHT },
  { heading: "dtype", text: (row: DeviceRow) => row.dtype },
  { heading: "stage", text: (row: DeviceRow) => row.stage },
  { heading: "ms", text: (row: DeviceRow) => decimals(row.ms, 4), ...RIGHT },
  { heading: "MB", text: (row: DeviceRow) => decimals(row.bytes / 1e6, 2), ...RIGHT },
  { heading: "GFLOP", text: (row: DeviceRow) => decimals(row.gflop, 3), ...RIGHT },
  { heading: "GB/s", text: (row: DeviceRow) => decimals(row.gb_s, 1), ...RIGHT },
  { heading: "GFLOP/s", text: (row: DeviceRow) => decimals(row.gflop_s, 0), ...RIGHT },
  { heading: "limit ms", text: (row: DeviceRow) => decimals(row.limit_ms, 4), ...RIGHT },
  { heading: "of limit", text: (row: DeviceRow) => decimals(row.of_limit, 2), ...RIGHT },
];
