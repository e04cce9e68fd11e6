/**
 * `run`: starts a program that uses libllama with the preloaded library.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import process from "node:process";
import type { Command } from "commander";
import {
  PRELOAD_SETTINGS,
  preloadEnvironment,
  type PreloadSetting,
  type PreloadSettings,
} from "chunkkv/llama-cpp";
import { which } from "../../tools/process.ts";
import { integer, UsageError } from "../usage.ts";

/** Adds the command. */
export function addRun(program: Command): void {
  const run = program.command("run")
    .description("start llama-server or another program that uses libllama, with compression")
    .usage("[options] -- PROGRAM [ARGS...]")
    .argument("<program>", "in PATH, or a path")
    .argument("[args...]", "its arguments");
  for (const { name, meaning, value } of PRELOAD_SETTINGS) {
    const option = optionOf(name);
    run.option(
      `${option} <${name === "stats" ? "FILE" : "VALUE"}>`,
      meaning,
      parser(option, value),
    );
  }
  run.passThroughOptions()
    .action(async (name: string, args: string[], options: PreloadSettings) => {
      process.exitCode = await runProgram(name, args, options);
    });
}

/** `--min-tokens` for `minTokens`. */
function optionOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function parser(option: string, value: PreloadSetting["value"]): (text: string) => unknown {
  if (value === "text") return (text) => text;
  if (value === "fraction") return fraction(option);
  const [low, high] = value;
  if (typeof low === "number" && typeof high === "number") return integer(option, low, high);
  return oneOf(option, value as readonly string[]);
}

function fraction(option: string): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== "" && value > 0 && value <= 1) return value;
    throw new UsageError(`Expected ${option} to be above 0 and at most 1 but found "${text}"`);
  };
}

function oneOf(option: string, names: readonly string[]): (text: string) => string {
  return (text) => {
    if (names.includes(text)) return text;
    const all = names.join(", ");
    throw new UsageError(`Expected ${option} to be one of ${all} but found "${text}"`);
  };
}

async function runProgram(
  name: string,
  args: string[],
  options: PreloadSettings,
): Promise<number> {
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

function start(name: string, args: string[], env: Record<string, string>): Deno.ChildProcess {
  try {
    // Not the folder that the task runs in: paths among the arguments are the user's.
    const cwd = process.env["INIT_CWD"] ?? Deno.cwd();
    return new Deno.Command(name, { args, env, cwd, stdin: "inherit" }).spawn();
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) {
      throw new UsageError(`Expected a program to run but found no "${name}"`, { cause });
    }
    if (!(cause instanceof Deno.errors.PermissionDenied)) throw cause;
    throw new UsageError(`Expected a program to run but found that "${name}" may not be`, {
      cause,
    });
  }
}
