/**
 * Rows of an evaluation, one an example, to one line for each task, method and fraction kept.
 *
 * @module
 */
import { mean } from "simple-statistics";
import {
  asDifference,
  type Difference,
  groupedInterval,
  hasInterval,
  meanInterval,
} from "../metrics/statistics.ts";
import { methodLabel } from "../evaluation/cases.ts";
import { CONTROLS } from "../tasks/example.ts";

/** A row of an evaluation's JSON: one example, or with `n` above 1 the mean of several. */
export interface EvaluationRow {
  method: string;
  /** Fraction of the prompt's tokens kept. */
  keep: number;
  /** Layers that share a selection. @default {1} */
  reuse?: number | null;
  /** Where several were compared. */
  chunk_size?: number;
  window_size?: number;
  spread?: number;
  /** Pairs the row with the full cache's. */
  id?: string;
  /** What scores are averaged over. */
  task?: string;
  /** Needle: tokens of the context. */
  length?: number;
  /** Needle: place of the fact, 0 to 1. */
  depth?: number;
  /** From 0 to 1; needle calls it `exact`. */
  score?: number | null;
  exact?: number | boolean | null;
  /** Of the reference answer, nats a token. */
  nll?: number | null;
  /** KL(full || this), nats. */
  kl?: number | null;
  /** Of the choices of each layer and the one before it. */
  similarity?: readonly number[] | null;
  /** Examples behind the row. @default {1} */
  n?: number;
  /** Of `score`, where `n` is above 1: the 95% confidence interval. */
  ci?: readonly [number, number] | null;
}

/** A mean, and its 95% interval where examples give one. */
export interface Estimate {
  mean: number;
  low?: number;
  high?: number;
}

/** One line of the summary. */
export interface Summary {
  /** Undefined: the mean over all tasks. */
  task: string | undefined;
  /** Method, and reuse where layers share. */
  method: string;
  keep: number;
  n: number;
  score: Estimate | undefined;
  /** Score minus the full cache's, example by example. */
  difference: Difference | undefined;
  kl: Estimate | undefined;
  nll: Estimate | undefined;
}

/** Whether rows are an evaluation's: a method, a fraction, and something that measures quality. */
export function isEvaluation(rows: readonly unknown[]): rows is EvaluationRow[] {
  return rows.length > 0 && rows.every((row) => {
    if (typeof row !== "object" || row === null) return false;
    const { method, keep, score, exact, kl, nll } = row as Partial<EvaluationRow>;
    const measured = [score, exact, kl, nll].some((value) => value !== undefined);
    return typeof method === "string" && typeof keep === "number" && measured;
  });
}

/** The name of a row's method in plots and tables. */
export function methodName({ reuse, ...row }: EvaluationRow): string {
  return methodLabel({ ...row, reuse: reuse ?? 1 });
}

/** The row's score as a number; undefined where it has none. */
export function scoreOf({ score, exact }: EvaluationRow): number | undefined {
  const value = score ?? exact;
  return value === undefined || value === null ? undefined : Number(value);
}

/**
 * One line for each task, method and fraction, and where tasks are several, their mean. Controls have a
 * line of their own and are in no mean: being right is another thing there.
 */
export function summarize(rows: readonly EvaluationRow[]): Summary[] {
  // Commands may add means of the rows that they list: those are computed here.
  const single = rows.filter(({ n = 1 }) => n === 1);
  const used = single.length > 0 ? single : rows;
  const byTask = [...Map.groupBy(used, ({ task }) => task ?? "")];
  const lines = byTask.flatMap(([task, own]) => {
    const full = own.filter(({ method }) => method === "full");
    return byCase(own).map((group) => taskLine(task, group, full));
  });
  const meant = used.filter(({ task }) => task !== CONTROLS);
  const tasks = byTask.filter(([task]) => task !== CONTROLS).length;
  if (byTask.length === 1 || tasks === 0) return lines;
  const full = meant.filter(({ method }) => method === "full");
  return [...byCase(meant).map((group) => meanLine(group, full, tasks)), ...lines];
}

function byCase(rows: readonly EvaluationRow[]): EvaluationRow[][] {
  return [...Map.groupBy(rows, (row) => `${row.keep} ${methodName(row)}`).values()];
}

function taskLine(
  task: string,
  group: readonly EvaluationRow[],
  full: readonly EvaluationRow[],
): Summary {
  return {
    task,
    method: methodName(group[0]!),
    keep: group[0]!.keep,
    n: group.reduce((sum, { n = 1 }) => sum + n, 0),
    score: estimate(group, scoreOf),
    difference: difference([group], full),
    kl: estimate(group, ({ kl }) => kl),
    nll: estimate(group, ({ nll }) => nll),
  };
}

function meanLine(
  group: readonly EvaluationRow[],
  full: readonly EvaluationRow[],
  tasks: number,
): Summary {
  const byTask = [...Map.groupBy(group, ({ task }) => task).values()];
  const over = (value: Value): Estimate | undefined => {
    const lists = byTask.map((rows) => numbers(rows, value)).filter((list) => list.length > 0);
    if (lists.length < tasks) return undefined;
    if (group.some(({ n = 1 }) => n > 1)) return { mean: mean(lists.map((list) => mean(list))) };
    return hasInterval(lists)
      ? groupedInterval(lists)
      : { mean: mean(lists.map((list) => mean(list))) };
  };
  return {
    task: undefined,
    method: methodName(group[0]!),
    keep: group[0]!.keep,
    n: group.reduce((sum, { n = 1 }) => sum + n, 0),
    score: over(scoreOf),
    difference: byTask.length < tasks ? undefined : difference(byTask, full),
    kl: over(({ kl }) => kl),
    nll: over(({ nll }) => nll),
  };
}

type Value = (row: EvaluationRow) => number | null | undefined;

function estimate(group: readonly EvaluationRow[], value: Value): Estimate | undefined {
  const values = numbers(group, value);
  if (values.length === 0) return undefined;
  if (group.every(({ n = 1 }) => n === 1)) {
    return values.length > 1 ? meanInterval(values) : { mean: values[0]! };
  }
  const [row] = group;
  const [low, high] = value === scoreOf && group.length === 1 && row?.ci || [];
  return { mean: mean(values), ...(low !== undefined && high !== undefined ? { low, high } : {}) };
}

/** Over the examples of each task; undefined where not every row has its like of the full cache. */
function difference(
  byTask: readonly (readonly EvaluationRow[])[],
  full: readonly EvaluationRow[],
): Difference | undefined {
  const key = ({ task, id }: EvaluationRow) => id === undefined ? "" : JSON.stringify([task, id]);
  const reference = new Map(full.map((row) => [key(row), scoreOf(row)]));
  const groups = byTask.map((rows) =>
    rows.filter(({ method }) => method !== "full").map((row) => {
      return key(row) === "" ? NaN : (scoreOf(row) ?? NaN) - (reference.get(key(row)) ?? NaN);
    })
  );
  if (!groups.every((group) => group.every(Number.isFinite))) return undefined;
  if (groups.some((group) => group.length === 0) || !hasInterval(groups)) return undefined;
  return asDifference(groupedInterval(groups));
}

function numbers(rows: readonly EvaluationRow[], value: Value): number[] {
  return rows.map(value).filter((found) =>
    typeof found === "number" && Number.isFinite(found)
  ) as number[];
}
