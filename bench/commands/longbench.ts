/**
 * `longbench`: questions about long texts, summaries, few-shot learning and code.
 *
 * @module
 */
import type { Command } from "commander";
import { runBenchmark } from "../evaluation/benchmark.ts";
import { addEvaluationOptions, type EvaluationOptions } from "../evaluation/options.ts";
import type { ExampleRow } from "../evaluation/rows.ts";
import { EVERYTHING, type Group, type SummaryRow } from "../evaluation/summary.ts";
import { groupTable, LEGEND, methodTable, percent } from "../evaluation/tables.ts";
import { load } from "../tasks/longbench.ts";
import { list } from "../usage.ts";

interface LongBenchOptions extends EvaluationOptions {
  tasks?: string[];
}

/** Adds the command. */
export function addLongBench(program: Command): void {
  addEvaluationOptions(
    program.command("longbench")
      .description("LongBench: questions about long texts, summaries, few-shot learning, code")
      .option("--tasks <LIST>", "tasks such as hotpotqa,gov_report", list("--tasks", String)),
  ).action(async (given: LongBenchOptions) => {
    const options = given.quick ? { limit: 1, ...given } : given;
    const { tasks } = options;
    await runBenchmark({
      command: "longbench",
      load,
      loadOptions: tasks ? { tasks } : {},
      groups,
      print,
    }, options);
  });
}

function groups({ task }: ExampleRow): Group[] {
  return [EVERYTHING, { ...EVERYTHING, task }];
}

function print(rows: readonly SummaryRow[]): string {
  const byTask = rows.filter(({ task }) => task !== null);
  return [
    methodTable(rows.filter(({ task }) => task === null), "score, %"),
    "Score by task",
    groupTable(byTask, (row) => row.task ?? "", (row) => percent(row.score)),
    "kl by task",
    groupTable(byTask, (row) => row.task ?? "", (row) => row.kl.toFixed(3)),
    LEGEND,
  ].join("\n");
}
