/**
 * `reuse`: how alike neighbouring layers choose, and what it costs and gains when they share.
 *
 * @module
 */
import { basename } from "node:path";
import type { Command } from "commander";
import { allCases, caseKey, methodLabel } from "../evaluation/cases.ts";
import {
  addEvaluationOptions,
  comparedMethods,
  type EvaluationOptions,
  modelPath,
} from "../evaluation/options.ts";
import type { ExampleRow } from "../evaluation/rows.ts";
import { loadModel, runEvaluation } from "../evaluation/run.ts";
import { type Ends, EVERYTHING, summarize, type SummaryRow } from "../evaluation/summary.ts";
import { interval, LEGEND, methodTable, percent, withEnds } from "../evaluation/tables.ts";
import { meanInterval } from "../metrics/statistics.ts";
import { renderHtml } from "../report/html.ts";
import { results, writeJson, writeReport } from "../report/results.ts";
import { formatTable } from "../report/table.ts";
import type { Load } from "../tasks/example.ts";
import { load as loadGsm8k } from "../tasks/gsm8k.ts";
import { load as loadLongBench } from "../tasks/longbench.ts";
import { load as loadNeedle } from "../tasks/needle.ts";
import { integer, list, UsageError } from "../usage.ts";

const BENCHMARKS: Record<string, Load> = {
  needle: loadNeedle,
  longbench: loadLongBench,
  gsm8k: loadGsm8k,
};

interface ReuseOptions extends Omit<EvaluationOptions, "reuse"> {
  reuse: number[];
  benchmark: string;
  lengths?: number[];
  tasks?: string[];
}

/** A summary with how alike layers chose. */
interface ReuseRow extends SummaryRow {
  /** Mean Jaccard similarity of neighbouring layers, its interval, and by layer. */
  similarity: number | null;
  similarity_ci: Ends | null;
  similarity_by_layer: number[];
}

/** Adds the command. */
export function addReuse(program: Command): void {
  const command = addEvaluationOptions(
    program.command("reuse")
      .description("how alike neighbouring layers choose, and what sharing a selection does")
      .option("--benchmark <NAME>", "needle, longbench or gsm8k", benchmarkName, "needle")
      .option("--tasks <LIST>", "tasks of longbench", list("--tasks", String))
      .option(
        "--lengths <LIST>",
        "needle: tokens of context",
        list("--lengths", integer("--lengths", 64)),
      ),
  );
  const one = command.options.find(({ long }) => long === "--reuse");
  if (one) {
    one.flags = "--reuse <LIST>";
    one.description = "numbers of layers that share one selection, for chunkkv";
    one.default([1, 2, 3, 5]).argParser(list("--reuse", integer("--reuse", 1)));
    command.setOptionValueWithSource("reuse", [1, 2, 3, 5], "default");
  }
  command.action(reuse);
}

async function reuse(given: ReuseOptions): Promise<void> {
  const options = given.quick ? { limit: 2, lengths: [400], ...given } : given;
  const { lengths, tasks, limit, seed } = options;
  if (given.lengths && given.benchmark !== "needle") {
    throw new UsageError(`Expected --lengths only with needle but found ${given.benchmark}`);
  }
  using model = await loadModel({ ...options, reuse: 1 });
  const examples = await BENCHMARKS[options.benchmark]!(options.data, {
    seed,
    countTokens: (text) => model.tokenizer.tokenize(text).length,
    ...(limit === undefined ? {} : { limit }),
    ...(lengths && options.benchmark === "needle" ? { lengths } : {}),
    ...(tasks ? { tasks } : {}),
  });
  const shared = options.reuse.filter((layers) => layers > 1);
  const cases = [
    ...allCases(comparedMethods(options), options.keeps, options),
    ...shared.flatMap((layers) => allCases(["chunkkv"], options.keeps, options, layers)),
  ];
  const name = basename(modelPath(options.model));
  console.log(`${name}: ${examples.length} examples of ${options.benchmark}`);
  const evaluation = await runEvaluation(
    model,
    `reuse ${options.benchmark}`,
    examples,
    cases,
    { ...options, reuse: 1 },
    { comparesLayers: true },
  );
  const rows = summarize(evaluation.rows, () => [EVERYTHING]).map((row) =>
    withSimilarity(row, evaluation.rows)
  );
  console.log(similarityTable(rows.filter((row) => row.reuse === 1 && row.similarity !== null)));
  console.log("What sharing does");
  console.log(
    methodTable(rows.filter((row) => ["full", "chunkkv"].includes(row.method)), "score, %"),
  );
  console.log(LEGEND);
  const value = {
    ...results("reuse", name, { ...options }, evaluation.rows),
    summary: rows,
    left_out: evaluation.tooLong,
  };
  if (options.json) await writeJson(options.json, value);
  if (options.html) await writeReport(options.html, "--html", await renderHtml(value));
}

function withSimilarity(row: SummaryRow, examples: readonly ExampleRow[]): ReuseRow {
  const lists = examples.flatMap((example) =>
    caseKey(example) === caseKey(row) && example.similarity?.length ? [example.similarity] : []
  );
  if (lists.length === 0) {
    return { ...row, similarity: null, similarity_ci: null, similarity_by_layer: [] };
  }
  const { mean, low, high } = meanInterval(lists.map(average));
  const byLayer = lists[0]!.map((_, layer) => average(lists.map((list) => list[layer]!)));
  const ends: Ends | null = lists.length === 1 ? null : [low, high];
  return { ...row, similarity: mean, similarity_ci: ends, similarity_by_layer: byLayer };
}

function similarityTable(rows: readonly ReuseRow[]): string {
  return formatTable(rows, [
    { heading: "method", text: methodLabel },
    { heading: "keep", text: (row) => percent(row.keep), align: "right" },
    {
      heading: "similarity of neighbouring layers",
      text: ({ similarity, similarity_ci }) => interval(withEnds(similarity, similarity_ci), 1, 3),
      align: "right",
    },
  ]);
}

function average(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function benchmarkName(text: string): string {
  if (Object.hasOwn(BENCHMARKS, text)) return text;
  const names = Object.keys(BENCHMARKS).join(", ");
  throw new UsageError(`Expected --benchmark to be one of ${names} but found "${text}"`);
}
