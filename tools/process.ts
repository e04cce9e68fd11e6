/**
 * Child processes: run one, find one.
 *
 * @module
 */
import { basename, delimiter, join } from "node:path";
import process from "node:process";

import { exists } from "./paths.ts";

/** How {@linkcode run} starts a program. */
export interface RunOptions {
  /** Working folder; default: this process's. */
  cwd?: string;
  /** Environment variables on top of this process's. */
  env?: Record<string, string>;
}

/** A program could not be started, or ended with an exit code other than 0. */
export class ProcessError extends Error {
  override name = "ProcessError";
}

/**
 * Runs a program and lets it write to this process's output.
 *
 * @throws {ProcessError} If it cannot be started or does not exit with 0.
 */
export async function run(command: string[], options: RunOptions = {}): Promise<void> {
  const child = spawn(command, options, "inherit");
  const { code } = await child.status;
  if (code !== 0) throw new ProcessError(exitMessage(command, code));
}

/**
 * Runs a program and returns what it wrote to stdout, without white space at the end.
 *
 * @throws {ProcessError} If it cannot be started or does not exit with 0; its stderr is quoted.
 */
export async function capture(command: string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await spawn(command, options, "piped").output();
  const decoder = new TextDecoder();
  if (code !== 0) {
    const said = `${decoder.decode(stdout)}${decoder.decode(stderr)}`.trim();
    throw new ProcessError(`${exitMessage(command, code)}${said ? `:\n${said}` : ""}`);
  }
  return decoder.decode(stdout).trimEnd();
}

/**
 * Runs a program, shows what it writes as it comes, and returns it too, with its exit code.
 *
 * @throws {ProcessError} If it cannot be started.
 */
export async function tee(
  command: string[],
  options: RunOptions = {},
): Promise<{ code: number; output: string }> {
  const child = spawn(command, options, "piped");
  let output = "";
  const show = async (from: ReadableStream<Uint8Array>, to: typeof Deno.stdout) => {
    const decoder = new TextDecoder();
    for await (const bytes of from) {
      output += decoder.decode(bytes, { stream: true });
      to.writeSync(bytes);
    }
  };
  await Promise.all([show(child.stdout, Deno.stdout), show(child.stderr, Deno.stderr)]);
  return { code: (await child.status).code, output };
}

/**
 * Finds a program the way a shell does.
 *
 * @param name A bare name, looked up in PATH, or a path.
 * @returns Its path, or null if there is none.
 */
export function which(name: string): string | null {
  const endings = process.platform === "win32" ? ["", ".exe", ".cmd", ".bat"] : [""];
  const folders = basename(name) === name ? (process.env["PATH"] ?? "").split(delimiter) : [""];
  for (const folder of folders) {
    for (const ending of endings) {
      const path = folder ? join(folder, name + ending) : name + ending;
      if (exists(path)) return path;
    }
  }
  return null;
}

/** The text of an error, with those that caused it. */
export function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause ? `${error.message} (${explain(error.cause)})` : error.message;
}

function spawn(command: string[], options: RunOptions, output: "inherit" | "piped") {
  const [program, ...args] = command;
  if (!program) throw new TypeError("Expected a program to run but found an empty command");
  try {
    const stdio = { stdin: "null", stdout: output, stderr: output } as const;
    return new Deno.Command(program, { args, ...options, ...stdio }).spawn();
  } catch (cause) {
    throw new ProcessError(`Expected to start ${program} but could not`, { cause });
  }
}

function exitMessage(command: string[], code: number): string {
  const name = basename(command[0] ?? "");
  return `Expected ${name} ${command[1] ?? ""} to succeed but found exit code ${code}`;
}
