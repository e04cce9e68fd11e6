/**
 * Tables of a report.
 *
 * @module
 */
import { type Markup, markup } from "./markup.ts";
import type { Estimate, Summary } from "./summary.ts";
import { percent } from "./svg.ts";

/** Every summary as a line; columns without values are left out. */
export function summaryTable(summaries: readonly Summary[]): Markup {
  const columns: { heading: string; text: (line: Summary) => string }[] = [
    { heading: "task", text: ({ task }) => task ?? "all tasks, mean" },
    { heading: "method", text: ({ method }) => method },
    { heading: "kept", text: ({ keep }) => percent(keep) },
    { heading: "n", text: ({ n }) => String(n) },
    { heading: "score, %", text: ({ score }) => interval(score, 100, 1) },
    { heading: "minus full, %", text: ({ difference }) => signed(difference) },
    { heading: "KL", text: ({ kl }) => interval(kl, 1, 4) },
    { heading: "NLL", text: ({ nll }) => interval(nll, 1, 3) },
  ];
  const used = columns.filter(({ text }) => summaries.some((line) => text(line) !== ""));
  return table(
    "Means, with 95% bootstrap intervals in brackets",
    used.map(({ heading }) => heading),
    summaries.map((line) => used.map(({ text }) => text(line))),
  );
}

/** All rows with all their columns that are not nested. */
export function rowTable(rows: readonly unknown[], caption: string): Markup {
  const records = rows.map((row) => row as Record<string, unknown>);
  const names = [...new Set(records.flatMap(Object.keys))].filter((name) =>
    records.some((record) => shown(record[name]) !== "")
  );
  return table(caption, names, records.map((record) => names.map((name) => shown(record[name]))));
}

function table(caption: string, headings: readonly string[], rows: readonly string[][]): Markup {
  return markup`
    <div class="scroll" tabindex="0" role="region" aria-label="${caption}">
      <table>
        <caption>${caption}</caption>
        <thead>
          <tr>${headings.map((heading) => markup`<th scope="col">${heading}</th>`)}</tr>
        </thead>
        <tbody>
    ${rows.map((row) => markup`<tr>${row.map(cell)}</tr>`)}
        </tbody>
      </table>
    </div>
  `;
}

function cell(text: string): Markup {
  const isNumber = /^[−+-]?\d/.test(text);
  return isNumber ? markup`<td class="number">${text}</td>` : markup`<td>${text}</td>`;
}

function interval(estimate: Estimate | undefined, factor: number, digits: number): string {
  if (estimate === undefined) return "";
  const { mean, low, high } = estimate;
  const text = (value: number) => (factor * value).toFixed(digits);
  if (low === undefined || high === undefined) return text(mean);
  return `${text(mean)} [${text(low)}, ${text(high)}]`;
}

function signed(difference: Summary["difference"]): string {
  if (difference === undefined) return "";
  const { mean, low, high, isSignificant } = difference;
  const text = (value: number) => {
    const digits = Math.abs(100 * value).toFixed(1);
    return value < 0 && digits !== "0.0" ? `−${digits}` : digits;
  };
  return `${text(mean)} [${text(low)}, ${text(high)}]${isSignificant ? " *" : ""}`;
}

function shown(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(Number(value.toPrecision(6)));
  if (typeof value === "object") return "";
  return String(value);
}
