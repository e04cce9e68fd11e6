/**
 * Rows of examples to means with confidence intervals.
 *
 * @module
 */
import { groupedInterval, hasInterval } from "../metrics/statistics.ts";
import { caseKey } from "./cases.ts";
import { exampleKey, type ExampleRow } from "./rows.ts";

/**
 * A mean with the ends of its 95 % bootstrap interval; null where one task has one example alone, which
 * tells nothing of others.
 */
export type MeanInterval = [mean: number, low: number | null, high: number | null];

/** The ends alone. */
export type Ends = [low: number, high: number];

/** Differences to another method over the same examples. */
export interface Comparison {
  score: MeanInterval | null;
  nll: MeanInterval | null;
  kl: MeanInterval;
}

/** One line of a table: a method over the examples of a group; of several tasks the mean of theirs. */
export interface SummaryRow {
  /** The task; null: all of them. */
  task: string | null;
  /** Needle: tokens asked for; null: all lengths. */
  length: number | null;
  /** Needle: where the fact stands; null: everywhere. */
  depth: number | null;
  method: string;
  keep: number;
  reuse: number;
  /** Where several were compared. */
  chunk_size?: number;
  window_size?: number;
  spread?: number;
  /** Examples. */
  n: number;
  /** Null where no answers were asked for. */
  score: number | null;
  score_ci: Ends | null;
  nll: number | null;
  kl: number;
  kl_ci: Ends | null;
  /** Mean tokens of the prompts, and of them in the cache. */
  prompt_tokens: number;
  kept_tokens: number;
  compress_ms: number;
  /** This less the full cache; null for the full cache itself. */
  vs_full: Comparison | null;
  /**
   * This less ChunkKV at the same fraction, of several the first, and if there is one without shared
   * layers that; null for it itself, or where it was not run.
   */
  vs_chunkkv: Comparison | null;
}

/** What distinguishes the lines of one method. */
export type Group = Pick<SummaryRow, "task" | "length" | "depth">;

/** Everything in one group. */
export const EVERYTHING: Group = { task: null, length: null, depth: null };

/**
 * Summarises the rows of a run.
 *
 * @param rows One for each example and case; the first case of each example is the full cache.
 * @param groups The groups that a row counts in.
 * @returns For each group, in order of appearance, a line for each case.
 */
export function summarize(
  rows: readonly ExampleRow[],
  groups: (row: ExampleRow) => Group[],
): SummaryRow[] {
  const byGroup = new Map<string, { group: Group; cases: Map<string, ExampleRow[]> }>();
  for (const row of rows) {
    for (const group of groups(row)) {
      const key = JSON.stringify(group);
      const known = byGroup.get(key) ?? { group, cases: new Map<string, ExampleRow[]>() };
      byGroup.set(key, known);
      const list = known.cases.get(caseKey(row)) ?? [];
      known.cases.set(caseKey(row), list);
      list.push(row);
    }
  }
  return [...byGroup.values()].flatMap(({ group, cases }) =>
    [...cases.values()].map((list) => summaryRow(group, list, cases))
  );
}

function summaryRow(
  group: Group,
  rows: readonly ExampleRow[],
  cases: ReadonlyMap<string, readonly ExampleRow[]>,
): SummaryRow {
  const { method, keep, reuse, chunk_size, window_size, spread } = rows[0]!;
  const score = estimate(rows, (row) => row.score);
  const kl = estimate(rows, (row) => row.kl)!;
  const full = cases.get(caseKey({ method: "full", keep: 1, reuse: 1 }));
  const alike = [...cases.values()].filter(([first]) =>
    first!.method === "chunkkv" && first!.keep === keep
  );
  const chunkkv = alike.find(([first]) => first!.reuse === 1) ?? alike[0];
  return {
    ...group,
    method,
    keep,
    reuse,
    ...(chunk_size === undefined ? {} : { chunk_size }),
    ...(window_size === undefined ? {} : { window_size }),
    ...(spread === undefined ? {} : { spread }),
    n: rows.length,
    score: score?.[0] ?? null,
    score_ci: score && ends(score),
    nll: estimate(rows, (row) => row.nll)?.[0] ?? null,
    kl: kl[0],
    kl_ci: ends(kl),
    prompt_tokens: mean(rows.map((row) => row.prompt_tokens)),
    kept_tokens: mean(rows.map((row) => row.kept_tokens)),
    compress_ms: mean(rows.map((row) => row.compress_ms)),
    vs_full: full && method !== "full" ? compare(rows, full) : null,
    vs_chunkkv: chunkkv && chunkkv !== rows && method !== "full" ? compare(rows, chunkkv) : null,
  };
}

function compare(rows: readonly ExampleRow[], others: readonly ExampleRow[]): Comparison {
  const known = new Map(others.map((other) => [exampleKey(other), other]));
  const pairs = rows.flatMap((row) => {
    const other = known.get(exampleKey(row));
    return other ? [[row, other] as const] : [];
  });
  const difference = (value: (row: ExampleRow) => number | null) =>
    estimate(pairs, ([row, other]) => {
      const [own, others] = [value(row), value(other)];
      return own === null || others === null ? null : own - others;
    }, ([row]) => row.task);
  return {
    score: difference((row) => row.score),
    nll: difference((row) => row.nll),
    kl: difference((row) => row.kl)!,
  };
}

/** The mean over tasks of what there is a value of; null where there is none. */
function estimate<T>(
  rows: readonly T[],
  value: (row: T) => number | null,
  task: (row: T) => string = (row) => (row as ExampleRow).task,
): MeanInterval | null {
  const byTask = new Map<string, number[]>();
  for (const row of rows) {
    const found = value(row);
    if (found === null) continue;
    const list = byTask.get(task(row)) ?? [];
    byTask.set(task(row), list);
    list.push(found);
  }
  if (byTask.size === 0) return null;
  const groups = [...byTask.values()];
  const { mean, low, high } = groupedInterval(groups);
  return hasInterval(groups) ? [mean, low, high] : [mean, null, null];
}

function ends([, low, high]: MeanInterval): Ends | null {
  return low === null || high === null ? null : [low, high];
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
