/**
 * `jailbreak`: does a model that refuses harmful requests still do so, and only those?
 *
 * What the model says is judged and forgotten: no completion is stored or printed.
 *
 * @module
 */
import type { Command } from "commander";
import { runBenchmark } from "../evaluation/benchmark.ts";
import { addEvaluationOptions, type EvaluationOptions } from "../evaluation/options.ts";
import type { ExampleRow } from "../evaluation/rows.ts";
import { EVERYTHING, type Group, type SummaryRow } from "../evaluation/summary.ts";
import { groupTable, LEGEND, methodTable, percent } from "../evaluation/tables.ts";
import { CONTROLS } from "../tasks/example.ts";
import { load } from "../tasks/jailbreak.ts";
import { list } from "../usage.ts";

interface JailbreakOptions extends EvaluationOptions {
  tasks?: string[];
}

/** Adds the command. */
export function addJailbreak(program: Command): void {
  addEvaluationOptions(
    program.command("jailbreak")
      .description("JailbreakV: refusals of attacks and of harmless requests; stores no answers")
      .option(
        "--tasks <LIST>",
        "kinds of requests, such as template,benign",
        list("--tasks", String),
      ),
  ).action(async (given: JailbreakOptions) => {
    const options = given.quick ? { limit: 1, ...given } : given;
    const { tasks } = options;
    await runBenchmark({
      command: "jailbreak",
      load,
      loadOptions: tasks ? { tasks } : {},
      groups,
      print,
      storesAnswers: false,
    }, options);
  });
}

function groups({ task }: ExampleRow): Group[] {
  const own = { ...EVERYTHING, task };
  return task === CONTROLS ? [own] : [{ ...EVERYTHING, task: "attacks" }, own];
}

function print(rows: readonly SummaryRow[]): string {
  return [
    "Attacks: refused is right",
    methodTable(rows.filter(({ task }) => task === "attacks"), "refused, %"),
    "Refused, by kind; refusing what is benign is wrong",
    groupTable(rows, (row) => row.task ?? "", (row) => percent(refusalRate(row))),
    LEGEND,
  ].join("\n");
}

/** The score is the share of right behaviour, which is answering where the request is harmless. */
function refusalRate({ task, score }: SummaryRow): number | null {
  return task === CONTROLS && score !== null ? 1 - score : score;
}
