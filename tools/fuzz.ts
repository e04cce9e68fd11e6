/**
 * `deno task test:fuzz`: libFuzzer on what reads other people's bytes, for a bounded time.
 *
 * @module
 */
import { join } from "node:path";
import process from "node:process";

import { Command } from "commander";

import { buildNative } from "./native.ts";
import { buildDir, llamaIncludeDir, repoRoot } from "./paths.ts";
import { explain, tee, which } from "./process.ts";
import { type Counts, sum, summaryLine } from "./test_summary.ts";
import { findToolchain } from "./toolchain.ts";

/** The fuzzers, and how many runs a second are the least on a slow machine. */
const TARGETS: Record<string, number> = { abi: 200, state: 5000, settings: 2000, report: 2000 };

const program = new Command("deno task test:fuzz")
  .description("Fuzzes the C ABI, the state reader, settings and paths.")
  .option("--seconds <n>", "time for each target", "30")
  .option("--target <name>", "only this one")
  .parse();
const { seconds, target } = program.opts<{ seconds: string; target?: string }>();

try {
  const folder = await build();
  const names = target === undefined ? Object.keys(TARGETS) : [target];
  const all: Counts[] = [];
  // One for each core at a time.
  const waiting = names.values();
  const lane = async () => {
    for (const name of waiting) all.push(await fuzz(folder, name, Number(seconds)));
  };
  await Promise.all(Array.from({ length: navigator.hardwareConcurrency }, lane));
  console.log(summaryLine(sum(all)));
  process.exitCode = sum(all).failed === 0 ? 0 : 1;
} catch (error) {
  console.error(explain(error));
  process.exitCode = 1;
}

async function build(): Promise<string> {
  llamaIncludeDir(); // says what is missing
  const clang = which("clang");
  if (!clang) throw new Error("Expected clang with libFuzzer in PATH but found none");
  const folder = join(buildDir(), "fuzz");
  const toolchain = { ...findToolchain(), compiler: [clang] };
  const defines = ["CKV_SANITIZE=address,undefined", "CKV_FUZZ=ON"];
  await buildNative({ folder, toolchain, defines });
  return folder;
}

/** Runs one, from the seeds and what earlier runs have found. */
async function fuzz(folder: string, name: string, seconds: number): Promise<Counts> {
  const least = TARGETS[name];
  if (least === undefined) {
    throw new Error(`Expected one of ${Object.keys(TARGETS).join(", ")} but found "${name}"`);
  }
  const [corpus, artifacts] = [join(folder, "corpus", name), join(folder, "artifacts", name)];
  for (const path of [corpus, artifacts]) Deno.mkdirSync(path, { recursive: true });
  const fuzzer = join(folder, "fuzz", `${name}_fuzz`);
  const options = [
    `-max_total_time=${seconds}`,
    "-max_len=1024",
    "-timeout=20",
    "-print_final_stats=1",
  ];
  // Standard output is what a library must not write to: closed. Its words on stderr are not shown.
  const command = [fuzzer, ...options, `-artifact_prefix=${artifacts}/`, "-close_fd_mask=3"];
  const { code, output } = await tee([...command, corpus, join("tests", "fuzz", "seeds", name)], {
    cwd: repoRoot(),
    // What is too large is refused by malloc, as it would be anywhere.
    env: { ASAN_OPTIONS: "allocator_may_return_null=1:detect_leaks=1" },
  });
  const runs = Number(/stat::number_of_executed_units:\s*(\d+)/.exec(output)?.[1] ?? 0);
  const artifact = /Test unit written to (\S+)/.exec(output)?.[1];
  const enough = runs >= least * seconds;
  console.log(`${name}: ${runs} executions, at least ${least * seconds} expected`);
  if (artifact) console.log(`Reproduce with: ${fuzzer} ${artifact}`);
  const held = code === 0 && enough;
  return { passed: Number(held), failed: Number(!held), skipped: 0 };
}
