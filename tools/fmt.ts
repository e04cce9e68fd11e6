/**
 * `deno task fmt`: formats TypeScript, JSON and Markdown with deno, C with clang-format.
 *
 * @module
 */
import { join } from "node:path";

import { Command } from "commander";

import { exists, repoRoot, venvProgram } from "./paths.ts";
import { explain, run } from "./process.ts";

const C_FOLDERS = ["csrc", "bindings", "bench", "tests"];
const C_FILE = /\.(c|h|cu|cuh)$/;

const program = new Command("deno task fmt")
  .description("Formats TypeScript, JSON, Markdown and C.")
  .option("--check", "change nothing; fail if something would change")
  .parse();
const { check } = program.opts<{ check?: true }>();

const outcomes = [
  await attempt(() => run([Deno.execPath(), "fmt", ...check ? ["--check"] : []], inRepo())),
  await attempt(formatC),
];
Deno.exit(outcomes.every((good) => good) ? 0 : 1);

async function formatC(): Promise<void> {
  // Only the pinned version: each formats a little differently.
  const clangFormat = venvProgram("clang-format");
  if (!clangFormat) {
    throw new Error("Expected clang-format in .venv but found none: run `deno task setup`");
  }
  const files = C_FOLDERS.flatMap((folder) =>
    exists(join(repoRoot(), folder)) ? cFiles(folder) : []
  );
  const mode = check ? ["--dry-run", "-Werror"] : ["-i"];
  await run([clangFormat, ...mode, ...files], inRepo());
}

function cFiles(folder: string): string[] {
  return [...Deno.readDirSync(join(repoRoot(), folder))].flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory) return cFiles(path);
    return C_FILE.test(entry.name) ? [path] : [];
  });
}

function inRepo(): { cwd: string } {
  return { cwd: repoRoot() };
}

async function attempt(job: () => Promise<void>): Promise<boolean> {
  try {
    await job();
    return true;
  } catch (error) {
    console.error(explain(error));
    return false;
  }
}
