/**
 * `gsm8k`: arithmetic word problems after eight worked ones.
 *
 * @module
 */
import type { Command } from "commander";
import { runBenchmark } from "../evaluation/benchmark.ts";
import { addEvaluationOptions, type EvaluationOptions } from "../evaluation/options.ts";
import { EVERYTHING } from "../evaluation/summary.ts";
import { LEGEND, methodTable } from "../evaluation/tables.ts";
import { load } from "../tasks/gsm8k.ts";

/** Adds the command. */
export function addGsm8k(program: Command): void {
  addEvaluationOptions(
    program.command("gsm8k")
      .description("GSM8K: arithmetic word problems after eight worked ones"),
  ).action(async (given: EvaluationOptions) => {
    const options = given.quick ? { limit: 2, ...given } : given;
    await runBenchmark({
      command: "gsm8k",
      load,
      groups: () => [EVERYTHING],
      print: (rows) => `${methodTable(rows, "right, %")}\n${LEGEND}`,
    }, options);
  });
}
