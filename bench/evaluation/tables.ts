/**
 * Summaries as tables for people.
 *
 * @module
 */
import { type Column, decimals, formatTable } from "../report/table.ts";
import { methodLabel } from "./cases.ts";
import type { Ends, MeanInterval, SummaryRow } from "./summary.ts";

const RIGHT = { align: "right" } as const;

/** A fraction in percent, such as 10%; a dash where there is none. */
export function percent(value: number | null): string {
  return value === null ? "-" : `${Number((100 * value).toFixed(1))}%`;
}

const CASE: Column<SummaryRow>[] = [
  { heading: "method", text: methodLabel },
  { heading: "keep", text: (row) => percent(row.keep), ...RIGHT },
];

/**
 * One line for each method: means, intervals, and differences over the same examples.
 *
 * @param rows Rows of one group.
 * @param score What the score is called.
 */
export function methodTable(rows: readonly SummaryRow[], score: string): string {
  return formatTable(rows, [
    ...CASE,
    { heading: "n", text: (row) => `${row.n}`, ...RIGHT },
    { heading: "tokens", text: (row) => row.kept_tokens.toFixed(0), ...RIGHT },
    {
      heading: score,
      text: ({ score, score_ci }) => interval(withEnds(score, score_ci), 100, 1),
      ...RIGHT,
    },
    {
      heading: "less full",
      text: ({ vs_full: other }) => interval(other?.score, 100, 1),
      ...RIGHT,
    },
    {
      heading: "less chunkkv",
      text: ({ vs_chunkkv: other }) => interval(other?.score, 100, 1),
      ...RIGHT,
    },
    { heading: "nll", text: (row) => decimals(row.nll, 3), ...RIGHT },
    { heading: "kl", text: (row) => interval(withEnds(row.kl, row.kl_ci), 1, 3), ...RIGHT },
    {
      heading: "kl less chunkkv",
      text: ({ vs_chunkkv: other }) => interval(other?.kl, 1, 3),
      ...RIGHT,
    },
    { heading: "compress ms", text: (row) => decimals(row.compress_ms, 1), ...RIGHT },
  ]);
}

/**
 * One line for each method, one column for each group.
 *
 * @param rows Rows of all groups.
 * @param name A group's heading.
 * @param text What is told of a row.
 */
export function groupTable(
  rows: readonly SummaryRow[],
  name: (row: SummaryRow) => string,
  text: (row: SummaryRow) => string,
): string {
  const label = (row: SummaryRow) => `${methodLabel(row)} ${row.keep}`;
  const columns = [...new Set(rows.map(name))];
  const lines = [...Map.groupBy(rows, label).values()];
  return formatTable(lines, [
    ...CASE.map(({ text, ...rest }) => ({ ...rest, text: (line: SummaryRow[]) => text(line[0]!) })),
    ...columns.map((column) => ({
      heading: column,
      text: (line: SummaryRow[]) => {
        const row = line.find((row) => name(row) === column);
        return row ? text(row) : "-";
      },
      ...RIGHT,
    })),
  ]);
}

/** What the columns mean. */
export const LEGEND =
  `[low, high]: 95 % bootstrap interval, where there are examples enough. less full, less chunkkv: difference ` +
  `over the same examples, chunkkv at the same keep.
nll: of the reference answer's tokens; kl: KL(full || this) over the full cache's greedy ` +
  `continuation, both in nats a token.`;

/** A mean and its ends, if any. */
export function withEnds(mean: number | null, ends: Ends | null): MeanInterval | null {
  return mean === null ? null : [mean, ...ends ?? [null, null] as const];
}

/** A mean with its interval: `61.5 [50.0, 72.1]`; a dash where there is no mean. */
export function interval(
  estimate: MeanInterval | null | undefined,
  scale: number,
  digits: number,
): string {
  if (!estimate) return "-";
  const [mean, low, high] = estimate.map((value) =>
    value === null ? null : (value * scale).toFixed(digits)
  );
  return low === null ? `${mean}` : `${mean} [${low}, ${high}]`;
}
