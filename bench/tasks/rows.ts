/**
 * Rows of the public data formats, JSONL and CSV, checked one by one.
 *
 * @module
 */
import { parse } from "csv-parse/sync";
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import * as v from "valibot";
import { UsageError } from "../usage.ts";

/** A row and where it stands. */
export interface Row<T> {
  value: T;
  /** `file:line`, for errors. */
  place: string;
}

type Schema<T> = v.BaseSchema<unknown, T, v.BaseIssue<unknown>>;

/** Names of the files in `dir` that end in one of `extensions`, sorted. */
export async function listFiles(dir: string, extensions: readonly string[]): Promise<string[]> {
  let names: string[];
  try {
    names = await readdir(dir);
  } catch (cause) {
    throw new UsageError(
      `Expected --data to name a readable folder but found "${dir}": ${(cause as Error).message}`,
      { cause },
    );
  }
  return names.filter((name) => extensions.some((end) => name.endsWith(end))).sort();
}

/** All rows of a JSONL or, by its name, CSV file. */
export async function readRows(path: string): Promise<Row<unknown>[]> {
  const text = (await Deno.readTextFile(path)).replace(/^\uFEFF/, "");
  return path.endsWith(".csv") ? csvRows(text, path) : jsonRows(text, path);
}

/** The rows of a file that all must match `schema`. */
export async function readRowsAs<T>(path: string, schema: Schema<T>): Promise<Row<T>[]> {
  return (await readRows(path)).map((row) => checkRow(row, schema));
}

/** The row as `schema` has it; otherwise an error that says what it expected where. */
export function checkRow<T>(row: Row<unknown>, schema: Schema<T>): Row<T> {
  return { value: check(row.value, schema, row.place), place: row.place };
}

/** A JSON file that must match `schema`; undefined where there is none. */
export async function readJson<T>(path: string, schema: Schema<T>): Promise<T | undefined> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  return check(parseJson(text, path), schema, path);
}

/** An error about what a data file holds. */
export function formatError(place: string, expected: string, found: unknown): UsageError {
  return new UsageError(`${place}: Expected ${expected} but found ${shown(found)}`);
}

/** The path's last part without its extension. */
export function stem(path: string): string {
  return basename(path).replace(/\.[^.]+$/, "");
}

/** A file that ships with the project. */
export function sample(...names: string[]): string {
  return join(import.meta.dirname ?? ".", "..", "data", ...names);
}

function jsonRows(text: string, path: string): Row<unknown>[] {
  const rows: Row<unknown>[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    const place = `${path}:${i + 1}`;
    if (line.trim() !== "") rows.push({ value: parseJson(line, place), place });
  }
  if (rows.length === 0) throw formatError(path, "at least one row", text);
  return rows;
}

function csvRows(text: string, path: string): Row<unknown>[] {
  let parsed: { record: unknown; info: { lines: number } }[];
  try {
    // `lines` counts to the record's end; its start is what one looks for.
    parsed = parse(text, { columns: true, info: true, skip_empty_lines: true });
  } catch (cause) {
    throw new UsageError(`${path}: Expected CSV with a heading: ${(cause as Error).message}`, {
      cause,
    });
  }
  if (parsed.length === 0) throw formatError(path, "at least one row", text);
  return parsed.map(({ record, info }) => ({ value: record, place: `${path}:${info.lines}` }));
}

function parseJson(text: string, place: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new UsageError(`${place}: Expected JSON but found ${shown(text)}`, { cause });
  }
}

function check<T>(value: unknown, schema: Schema<T>, place: string): T {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = v.getDotPath(issue);
  const field = path === null ? "" : `"${path}" to be `;
  throw new UsageError(
    `${place}: Expected ${field}${issue.expected ?? issue.message} but found ${
      shownIssue(value, issue)
    }`,
  );
}

function shownIssue(row: unknown, issue: v.BaseIssue<unknown>): string {
  const isMissing = issue.input === undefined && typeof row === "object" && row !== null;
  return isMissing ? `none; the row has ${Object.keys(row).join(", ")}` : shown(issue.input);
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? text.slice(0, 77) + "..." : text;
}
