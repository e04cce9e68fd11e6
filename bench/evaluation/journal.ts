/**
 * Rows on disk as they come, so that a run that was stopped goes on where it was.
 *
 * @module
 */
import { createHash } from "node:crypto";

import type { Example } from "../tasks/example.ts";
import { UsageError } from "../usage.ts";
import { type Case, caseKey } from "./cases.ts";
import { exampleKey, type ExampleRow } from "./rows.ts";

/** What rows depend on: a journal of other settings is not continued. */
export type JournalSettings = Readonly<Record<string, unknown>>;

/** A row with what tells that it is about the same prompt. */
type Entry = ExampleRow & { prompt_hash: string };

/** Rows of a run, by example and case. */
export class Journal implements Disposable {
  readonly #file: Deno.FsFile | undefined;
  readonly #rows = new Map<string, Entry>();

  /**
   * Opens a journal, or one in memory alone.
   *
   * @param path A file of JSON lines, new or of a run with the same settings.
   * @param settings What the rows depend on.
   * @throws {UsageError} If the file is none, or of other settings.
   */
  constructor(path: string | undefined, settings: JournalSettings) {
    if (path === undefined) return;
    this.#file = openAlone(path);
    try {
      this.#open(path, JSON.stringify(settings));
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  #open(path: string, header: string): void {
    const text = readWhole(this.#file!);
    // A run that was killed while it wrote leaves half a line.
    const whole = text.slice(0, text.lastIndexOf("\n") + 1);
    const [first, ...lines] = whole.split("\n").filter((line) => line !== "");
    if (first !== undefined) this.#read(path, first, header, lines);
    else if (text.trim() !== "" && !header.startsWith(text)) throw notAJournal(path, text);
    this.#file!.truncateSync(new TextEncoder().encode(whole).length);
    if (first === undefined) this.#write(header);
  }

  #read(path: string, first: string, header: string, lines: readonly string[]): void {
    if (first !== header) {
      let found: JournalSettings;
      try {
        found = JSON.parse(first);
      } catch {
        throw notAJournal(path, first);
      }
      const wanted: JournalSettings = JSON.parse(header);
      const other = Object.keys({ ...found, ...wanted }).filter((key) =>
        JSON.stringify(found[key]) !== JSON.stringify(wanted[key])
      );
      const values = (of: JournalSettings) =>
        other.map((key) => `${key} ${JSON.stringify(of[key]) ?? "not set"}`).join(", ");
      throw new UsageError(
        `Expected --resume to name a journal of ${values(wanted)} but found "${path}" of ${
          values(found)
        }`,
      );
    }
    for (const [i, line] of lines.entries()) {
      try {
        const entry: Entry = JSON.parse(line);
        this.#rows.set(rowKey(exampleKey(entry), entry), entry);
      } catch (cause) {
        throw new UsageError(`Expected a row in line ${i + 2} of "${path}" but found ${line}`, {
          cause,
        });
      }
    }
  }

  /** The row of an example and case if it is there and about the same prompt. */
  find(example: string, one: Case, promptHash: string): ExampleRow | undefined {
    const entry = this.#rows.get(rowKey(example, one));
    if (entry?.prompt_hash !== promptHash) return undefined;
    const { prompt_hash: _hash, ...row } = entry;
    return row;
  }

  /** Adds rows of one prompt. */
  add(rows: readonly ExampleRow[], promptHash: string): void {
    for (const row of rows) {
      const entry = { ...row, prompt_hash: promptHash };
      this.#rows.set(rowKey(exampleKey(row), row), entry);
      this.#write(JSON.stringify(entry));
    }
  }

  #write(line: string): void {
    const bytes = new TextEncoder().encode(`${line}\n`);
    for (let done = 0; this.#file && done < bytes.length;) {
      done += this.#file.writeSync(bytes.subarray(done));
    }
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file?.close();
  }
}

/** A short name of what an example's rows depend on: its prompt, and what of it they are judged by. */
export function exampleHash(tokens: Int32Array, example: Example): string {
  const { answers, reference, maxTokens, stop, metric, allClasses } = example;
  const judged = JSON.stringify([answers, reference, maxTokens, stop, metric, allClasses]);
  const hash = createHash("sha256").update(
    new Uint8Array(tokens.buffer.slice(
      tokens.byteOffset,
      tokens.byteOffset + tokens.byteLength,
    )),
  ).update(judged);
  return `${tokens.length}-${hash.digest("hex").slice(0, 16)}`;
}

function rowKey(example: string, one: Case): string {
  return `${example} ${caseKey(one)}`;
}

/** Opens a file that no other process has open as a journal. */
function openAlone(path: string): Deno.FsFile {
  let file;
  try {
    file = Deno.openSync(path, { read: true, append: true, create: true });
  } catch (cause) {
    throw new UsageError(
      `Expected --resume to name a writable file but found "${path}": ${(cause as Error).message}`,
      { cause },
    );
  }
  if (!file.statSync().isFile) {
    file.close();
    throw new UsageError(`Expected --resume to name a file but found the device "${path}"`);
  }
  try {
    if (file.tryLockSync(true)) return file;
  } catch {
    return file; // a file system without locks
  }
  file.close();
  throw new UsageError(
    `Expected --resume to name a journal of one run but found "${path}" in use by another one`,
  );
}

function readWhole(file: Deno.FsFile): string {
  const bytes = new Uint8Array(file.statSync().size);
  let length = 0;
  for (let read; (read = file.readSync(bytes.subarray(length))); length += read);
  return new TextDecoder().decode(bytes.subarray(0, length));
}

function notAJournal(path: string, found: string): UsageError {
  return new UsageError(
    `Expected --resume to name a new file or a journal but found "${path}", which begins with ${
      JSON.stringify(found.slice(0, 40))
    }`,
  );
}
