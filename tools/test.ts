/**
 * `deno task suites`: runs test suites; the last line adds them up.
 *
 * @module
 */
import { Argument, Command } from "commander";

import { explain } from "./process.ts";
import { DEFAULT_SUITES, SUITES } from "./suites.ts";
import { type Counts, sum, summaryLine } from "./test_summary.ts";

const program = new Command("deno task suites")
  .description("Runs test suites; without a name those that need no special compiler.")
  .addArgument(new Argument("[suites...]").choices(Object.keys(SUITES)))
  .option("--filter <text>", "only TypeScript tests with this in their name")
  .parse();
const { filter } = program.opts<{ filter?: string }>();
const names = program.args.length > 0 ? program.args : DEFAULT_SUITES;

const results: { name: string; seconds: number; counts: Counts }[] = [];
for (const name of names) {
  console.log(`\n== ${name}`);
  const start = performance.now();
  let counts: Counts = { passed: 0, failed: 1, skipped: 0 };
  try {
    counts = await SUITES[name]?.(filter) ?? counts;
  } catch (error) {
    console.log(explain(error));
  }
  results.push({ name, seconds: (performance.now() - start) / 1000, counts });
}

console.log("");
for (const { name, seconds, counts } of results) {
  console.log(`${name.padEnd(10)} ${seconds.toFixed(1).padStart(7)} s   ${summaryLine(counts)}`);
}
const total = sum(results.map(({ counts }) => counts));
console.log(summaryLine(total));
Deno.exit(total.failed === 0 ? 0 : 1);
