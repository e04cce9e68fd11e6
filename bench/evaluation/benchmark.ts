/**
 * A benchmark as a command: load, evaluate, tell.
 *
 * @module
 */
import { basename } from "node:path";
import type { Example, Load, LoadOptions } from "../tasks/example.ts";
import { renderHtml } from "../report/html.ts";
import { results, writeJson, writeReport } from "../report/results.ts";
import { allCases } from "./cases.ts";
import { comparedMethods, type EvaluationOptions, modelPath } from "./options.ts";
import type { ExampleRow } from "./rows.ts";
import { type Evaluation, loadModel, runEvaluation } from "./run.ts";
import { type Group, summarize, type SummaryRow } from "./summary.ts";

/** What a benchmark has of its own. */
export interface Benchmark {
  readonly command: string;
  readonly load: Load;
  /** What it asks for beside limit and seed. */
  readonly loadOptions?: Partial<LoadOptions>;
  /** The groups whose means are told. */
  readonly groups: (row: ExampleRow) => Group[];
  /** What is printed. */
  readonly print: (rows: readonly SummaryRow[]) => string;
  /** Whether rows hold what the model said. @default {true} */
  readonly storesAnswers?: boolean;
}

/** Runs a benchmark with the options of its command. */
export async function runBenchmark(
  benchmark: Benchmark,
  options: EvaluationOptions,
): Promise<void> {
  const { command, load, storesAnswers = true } = benchmark;
  const cases = allCases(comparedMethods(options), options.keeps, options, options.reuse);
  using model = await loadModel(options);
  const examples = await load(options.data, {
    seed: options.seed,
    ...(options.limit === undefined ? {} : { limit: options.limit }),
    countTokens: (text: string) => model.tokenizer.tokenize(text).length,
    ...benchmark.loadOptions,
  });
  const name = basename(modelPath(options.model));
  console.log(`${name}, llama.cpp ${model.engine.version}: ${counted(examples)}`);
  if (options.data === undefined) {
    console.log("A tiny sample: it shows that everything runs, its scores mean nothing");
  }
  const evaluation = await runEvaluation(model, command, examples, cases, options, {
    storesAnswers,
  });
  const rows = summarize(evaluation.rows, benchmark.groups);
  console.log(`${notes(evaluation)}\n${benchmark.print(rows)}`);
  const value = {
    ...results(command, name, { ...options }, evaluation.rows),
    summary: rows,
    left_out: evaluation.tooLong,
  };
  if (options.json) await writeJson(options.json, value);
  if (options.html) await writeReport(options.html, "--html", await renderHtml(value));
}

function counted(examples: readonly Example[]): string {
  const tasks = new Map<string, number>();
  for (const { task } of examples) tasks.set(task, (tasks.get(task) ?? 0) + 1);
  return [...tasks].map(([task, count]) => `${task} ${count}`).join(", ");
}

function notes({ tooLong, resumed }: Evaluation): string {
  const left = Object.entries(tooLong).map(([task, count]) => `${task} ${count}`).join(", ");
  return [
    ...(left ? [`Left out, being longer than the context: ${left}`] : []),
    ...(resumed > 0 ? [`From the journal: ${resumed} examples`] : []),
  ].join("\n");
}
