/**
 * `run`: starts a program that uses libllama with the preloaded library.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import process from "node:process";
import type { Command } from "commander";
import { preloadEnvironment, type PreloadSettings } from "chunkkv/llama-cpp";
import { integer, UsageError } from "../usage.ts";

type RunOptions = Omit<PreloadSettings, "keep"> & { keep?: number };

/** Adds the command. */
export function addRun(program: Command): void {
  program.command("run")
    .description("start llama-server or another program that uses libllama, with compression")
    .usage("[options] -- PROGRAM [ARGS...]")
    .argument("<program>", "in PATH, or a path")
    .argument("[args...]", "its arguments")
    .option("--keep <FRACTION>", "fraction of the tokens to keep (default: 0.2)", fraction)
    .option("--budget <N>", "tokens to keep, instead of a fraction", integer("--budget", 1))
    .option("--method <NAME>", "chunkkv, snapkv, streaming_llm or full (default: chunkkv)")
    .option("--chunk-size <N>", "tokens per chunk (default: 10)", integer("--chunk-size", 1))
    .option("--window <N>", "observation window (default: 32)", integer("--window", 1, 64))
    .option("--reuse <N>", "layers that share one selection (default: 1)", integer("--reuse", 1))
    .option(
      "--min-tokens <N>",
      "compress prompts with more new tokens than this (default: 512)",
      integer("--min-tokens", 0),
    )
    .option(
      "--decode-budget <N>",
      "compress to so many tokens while generating, too",
      integer("--decode-budget", 1),
    )
    .option(
      "--decode-slack <N>",
      "tokens above that budget at which it happens (default: a quarter of it, at least 64)",
      integer("--decode-slack", 1),
    )
    .option("--threads <N>", "threads of the compression itself", integer("--threads", 0))
    .option("--log-level <LEVEL>", "silent, warn, info or debug (default: info)")
    .option("--stats <FILE>", "append a JSON line per compaction")
    .passThroughOptions()
    .action(async (name: string, args: string[], options: RunOptions) => {
      process.exitCode = await runProgram(name, args, options);
    });
}

function fraction(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value > 0 && value <= 1) return value;
  throw new UsageError(`Expected --keep to be above 0 and at most 1 but found "${text}"`);
}

function oneOf(option: string, value: string | undefined, names: string[]): void {
  if (value === undefined || names.includes(value)) return;
  throw new UsageError(`Expected ${option} to be one of ${names.join(", ")} but found "${value}"`);
}

async function runProgram(name: string, args: string[], options: RunOptions): Promise<number> {
  oneOf("--method", options.method, ["chunkkv", "snapkv", "streaming_llm", "full"]);
  oneOf("--log-level", options.logLevel, ["silent", "warn", "info", "debug"]);
  const env = preloadEnvironment(options);
  if (await isStatic(name)) {
    console.error(
      `chunkkv: ${name} has llama.cpp inside instead of a shared libllama: it runs on untouched`,
    );
  }
  const child = start(name, args, env);
  // The terminal sends Ctrl-C to the program as well: it ends in its own way, and this after it.
  const ignore = () => {};
  const pass = () => child.kill("SIGTERM");
  Deno.addSignalListener("SIGINT", ignore);
  Deno.addSignalListener("SIGTERM", pass);
  try {
    return (await child.status).code;
  } finally {
    Deno.removeSignalListener("SIGINT", ignore);
    Deno.removeSignalListener("SIGTERM", pass);
  }
}

/** True if the program contains libllama itself, so that nothing can be put in between. */
async function isStatic(name: string): Promise<boolean> {
  const path = which(name);
  if (!path) return false;
  const { isFile, size } = await Deno.stat(path);
  if (!isFile || size > 2 ** 30) return false;
  const bytes = Buffer.from(await Deno.readFile(path));
  // The name that libllama gives to the tensors of its cache.
  return bytes.subarray(0, 4).toString("latin1") === "\x7fELF" && bytes.includes("cache_k_l%d");
}

/** Finds a program the way a shell does. */
function which(name: string): string | null {
  const folders = name.includes("/") ? [""] : (process.env["PATH"] ?? "").split(delimiter);
  for (const folder of folders) {
    const path = folder ? join(folder, name) : name;
    if (existsSync(path)) return path;
  }
  return null;
}

function start(name: string, args: string[], env: Record<string, string>): Deno.ChildProcess {
  try {
    return new Deno.Command(name, { args, env, stdin: "inherit" }).spawn();
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    throw new UsageError(`Expected a program to run but found no "${name}"`, { cause });
  }
}
