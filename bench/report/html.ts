/**
 * Results as one HTML page with plots: works offline, asks nothing of any other machine.
 *
 * @module
 */
import { join } from "node:path";
import { mean } from "simple-statistics";
import { commandLine } from "./command_line.ts";
import { rowTable, summaryTable } from "./html_tables.ts";
import { Markup, markup } from "./markup.ts";
import { againstKept, bars, heatMaps, methodsOf, similarityPlot } from "./plots.ts";
import type { Results } from "./results.ts";
import {
  type EvaluationRow,
  isEvaluation,
  methodName,
  summarize,
  type Summary,
} from "./summary.ts";
import { percent, type Plot } from "./svg.ts";

// No script, no request: what the page shows is in the page.
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/**
 * A page about the results of any command, with plots where its rows are an evaluation's
 * ({@linkcode EvaluationRow}) or have speeds.
 *
 * @param results What `--json` writes.
 * @returns The whole page.
 */
export async function renderHtml(results: Results<unknown>): Promise<string> {
  const title = `chunkkv ${results.command}${results.model ? `: ${results.model}` : ""}`;
  const style = await Deno.readTextFile(join(import.meta.dirname ?? ".", "style.css"));
  const { rows } = results;
  const body = isEvaluation(rows)
    ? [await evaluation(rows), await speeds(rows, caseName), allRows(rows)]
    : [await speeds(rows, rowName), rowTable(rows, "All rows")];
  return markup`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<link rel="icon" href="data:,">
<title>${title}</title>
<style>
${new Markup(style)}
</style>
</head>
<body>
<header>
<h1>${title}</h1>
${origin(results)}
</header>
<main>
${body}
</main>
</body>
</html>
`.toString();
}

function origin(results: Results<unknown>): Markup {
  const { os, arch, cpu, cores, memory_gib } = results.machine;
  const facts = [
    ["Command", markup`<code>${commandLine(results)}</code>`],
    ["Machine", `${cpu}, ${cores} cores, ${memory_gib} GiB; ${os} ${arch}`],
    ["Version", `chunkkv ${results.version}`],
  ] as const;
  return markup`<dl>${
    facts.map(([name, value]) =>
      markup`
        <dt>${name}</dt>
        <dd>${value}</dd>
      `
    )
  }</dl>`;
}

async function evaluation(rows: readonly EvaluationRow[]): Promise<Markup> {
  const summaries = summarize(rows);
  const methods = methodsOf(summaries);
  const tasks = [...Map.groupBy(summaries, ({ task }) => task)];
  const overview = await quality(tasks[0]![1], methods);
  const perTask = await Promise.all(
    tasks.slice(1).map(([task, lines]) =>
      againstKept(lines, methods, { ...SCORE, title: task ?? "" })
    ),
  );
  const note = summaries.some(({ difference }) => difference !== undefined)
    ? "An asterisk marks a difference from the full cache whose 95% interval, over the same examples, leaves out zero."
    : "";
  return markup`
    ${section("Quality against tokens kept", figures(overview))}
    ${section("Needles found", figures(await heatMaps(rows)))}
    ${section("By task", figures(perTask))}
    ${section("Layers", figures([await similarityPlot(rows)]))}
    <section>
    <h2>Figures</h2>
    ${summaryTable(summaries)}
    <p>${note} KL: of the full cache's next-token distribution from this one's, nats a token. NLL: of
    the reference answer, nats a token.</p>
    </section>
  `;
}

function allRows(rows: readonly unknown[]): Markup {
  return markup`
    <details>
      <summary>All ${rows.length} rows</summary>
      ${rowTable(rows, "All rows")}
    </details>
  `;
}

const SCORE = {
  label: "score",
  value: ({ score }: Summary) => score,
  domain: [0, 1],
  format: ".0%",
} as const;

async function quality(lines: readonly Summary[], methods: readonly string[]) {
  const title = lines[0]!.task ?? "mean over tasks";
  return await Promise.all([
    againstKept(lines, methods, { ...SCORE, title: `Score, ${title || "all"}` }),
    againstKept(lines, methods, {
      title: "Divergence from the full cache",
      label: "KL, nats a token",
      value: ({ kl }) => kl,
    }),
    againstKept(lines, methods, {
      title: "Reference answer",
      label: "NLL, nats a token",
      value: ({ nll }) => nll,
    }),
  ]);
}

type Named = Record<string, unknown>;

/** Bars where rows have speeds or sizes; of rows of one name their mean. */
async function speeds(
  rows: readonly unknown[],
  name: (row: Named) => string,
): Promise<Markup> {
  const measures = [
    ["decode_tps", "Decoding", "tokens a second"],
    ["native_tps", "Decoding at that length, never compressed", "tokens a second"],
    ["kv_mib", "KV cache", "MiB"],
    ["prefill_s", "Reading the prompt", "seconds"],
    ["compress_ms", "Compression", "milliseconds"],
  ] as const;
  const records = rows.map((row) => row as Named);
  const plots = await Promise.all(measures.map(([field, title, label]) => {
    const there = records.filter((row) => typeof row[field] === "number");
    const values = [...Map.groupBy(there, name)].map(([name, group]) => ({
      name,
      value: mean(group.map((row) => row[field] as number)),
    }));
    return values.length === 0 ? undefined : bars(values, title, label);
  }));
  return section("Speed and memory", figures(plots));
}

/** A method, what it keeps, and of how many tokens. */
function rowName(row: Named): string {
  const { prompt_tokens: tokens } = row;
  return typeof tokens === "number" ? `${caseName(row)} of ${tokens}` : caseName(row);
}

function caseName(row: Named): string {
  const method = row.method === undefined ? "" : methodName(row as unknown as EvaluationRow);
  return [method, typeof row.keep === "number" ? percent(row.keep) : ""].join(" ").trim();
}

function section(title: string, content: Markup | undefined): Markup {
  return content ? markup`<section><h2>${title}</h2>${content}</section>` : markup``;
}

function figures(plots: readonly (Plot | undefined)[]): Markup | undefined {
  const there = plots.filter((plot) => plot !== undefined);
  if (there.length === 0) return undefined;
  return markup`<div class="plots">${
    there.map(({ title, description, svg }) =>
      markup`
        <figure>
          <figcaption>${title}</figcaption>
          <div role="img" aria-label="${description}">${new Markup(svg)}</div>
        </figure>
      `
    )
  }</div>`;
}
