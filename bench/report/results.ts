/**
 * What `--json FILE` writes: one shape for every command.
 *
 * @module
 */
import { cpus, totalmem } from "node:os";
import { VERSION } from "../version.ts";
import { UsageError } from "../usage.ts";

/** Where the numbers were measured. */
export interface Machine {
  os: string;
  arch: string;
  cpu: string;
  cores: number;
  memory_gib: number;
}

/** One command's outcome. */
export interface Results<Row> {
  command: string;
  version: string;
  machine: Machine;
  model: string | null;
  args: Record<string, unknown>;
  rows: Row[];
}

/** This machine, as far as the operating system says. */
export function machine(): Machine {
  const list = cpus();
  return {
    os: Deno.build.os,
    arch: Deno.build.arch,
    cpu: list[0]?.model.trim() ?? "unknown",
    cores: list.length,
    memory_gib: Math.round(totalmem() / 2 ** 30),
  };
}

/** Rows with what is needed to read them later. */
export function results<Row>(
  command: string,
  model: string | null,
  args: Record<string, unknown>,
  rows: Row[],
): Results<Row> {
  return { command, version: VERSION, machine: machine(), model, args, rows };
}

/**
 * Looks whether a report can be written, before work is done that would be lost with it. Nothing is
 * left behind; pipes and devices are left alone, since a reader would take the look for the end.
 *
 * @throws {UsageError} If the file cannot be opened for writing.
 */
export async function checkReportPath(path: string, option: string): Promise<void> {
  try {
    const found = await Deno.stat(path).catch(() => null);
    if (found === null) {
      (await Deno.open(path, { write: true, createNew: true })).close();
      await Deno.remove(path);
    } else if (found.isFile || found.isDirectory) {
      (await Deno.open(path, { append: true })).close();
    }
  } catch (cause) {
    if (cause instanceof Deno.errors.AlreadyExists) return; // a link to what is not there yet
    throw notWritable(path, option, cause);
  }
}

function notWritable(path: string, option: string, cause: unknown): UsageError {
  return new UsageError(
    `Expected ${option} to name a writable file but found "${path}": ${(cause as Error).message}`,
    { cause },
  );
}

/** Writes results as JSON; a path that cannot be written is bad usage. */
export async function writeJson<Row>(path: string, value: Results<Row>): Promise<void> {
  await writeReport(path, "--json", JSON.stringify(value, null, 2) + "\n");
}

/** Writes a report to the file that an option names; a path that cannot be written is bad usage. */
export async function writeReport(path: string, option: string, text: string): Promise<void> {
  try {
    await Deno.writeTextFile(path, text);
  } catch (cause) {
    throw notWritable(path, option, cause);
  }
}
