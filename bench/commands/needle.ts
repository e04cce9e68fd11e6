/**
 * `needle`: a fact inside a long text, by length and depth.
 *
 * @module
 */
import type { Command } from "commander";
import { runBenchmark } from "../evaluation/benchmark.ts";
import { addEvaluationOptions, type EvaluationOptions } from "../evaluation/options.ts";
import type { ExampleRow } from "../evaluation/rows.ts";
import { EVERYTHING, type Group, type SummaryRow } from "../evaluation/summary.ts";
import { groupTable, LEGEND, methodTable, percent } from "../evaluation/tables.ts";
import { DEFAULT_DIGITS, load } from "../tasks/needle.ts";
import { fraction, integer, list } from "../usage.ts";

interface NeedleOptions extends EvaluationOptions {
  lengths?: number[];
  depths?: number[];
  digits: number;
}

/** Adds the command. */
export function addNeedle(program: Command): void {
  addEvaluationOptions(
    program.command("needle")
      .description("a fact hidden in a long text: is it found in what is kept?")
      .option(
        "--lengths <LIST>",
        "tokens of context (default: 1000, 2000, 4000)",
        list("--lengths", integer("--lengths", 64)),
      )
      .option(
        "--depths <LIST>",
        "where the fact stands, 0 to 1 (default: 0, 0.25, 0.5, 0.75, 1)",
        list("--depths", fraction("--depths", 0)),
      )
      .option(
        "--digits <N>",
        "of the number to be found: small models have a token for each",
        integer("--digits", 1, 15),
        DEFAULT_DIGITS,
      ),
  ).action(async (given: NeedleOptions) => {
    const options = given.quick ? { limit: 3, lengths: [400], ...given } : given;
    const { lengths, depths, digits } = options;
    await runBenchmark({
      command: "needle",
      load,
      loadOptions: { digits, ...(lengths ? { lengths } : {}), ...(depths ? { depths } : {}) },
      groups,
      print,
    }, options);
  });
}

function groups({ task, ...row }: ExampleRow): Group[] {
  const length = row.length ?? null;
  const depth = row.depth ?? null;
  return [EVERYTHING, { task, length, depth: null }, { task, length, depth }];
}

function print(rows: readonly SummaryRow[]): string {
  const byLength = rows.filter(({ length, depth }) => length !== null && depth === null);
  return [
    methodTable(rows.filter(({ length }) => length === null), "found, %"),
    "Found, by tokens of context",
    groupTable(byLength, (row) => `${row.length}`, (row) => percent(row.score)),
    LEGEND,
  ].join("\n");
}
