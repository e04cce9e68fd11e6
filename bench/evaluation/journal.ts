/**
 * Rows on disk as they come, so that a run that was stopped goes on where it was.
 *
 * @module
 */
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
    const header = JSON.stringify(settings);
    const text = readIfThere(path);
    // A run that was killed while it wrote leaves half a line.
    const whole = text.slice(0, text.lastIndexOf("\n") + 1);
    const [first, ...lines] = whole.split("\n").filter((line) => line !== "");
    if (first !== undefined) this.#read(path, first, header, lines);
    else if (text.trim() !== "" && !header.startsWith(text)) throw notAJournal(path, text);
    try {
      this.#file = Deno.openSync(path, { write: true, create: true });
      this.#file.truncateSync(new TextEncoder().encode(whole).length);
      this.#file.seekSync(0, Deno.SeekMode.End);
    } catch (cause) {
      throw new UsageError(
        `Expected --resume to name a writable file but found "${path}": ${
          (cause as Error).message
        }`,
        { cause },
      );
    }
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

/** A short name of a prompt's tokens: FNV-1a. */
export function promptHash(tokens: Int32Array): string {
  let hash = 0x811c9dc5;
  for (const token of tokens) hash = Math.imul(hash ^ token, 0x01000193) >>> 0;
  return `${tokens.length}-${hash.toString(16)}`;
}

function rowKey(example: string, one: Case): string {
  return `${example} ${caseKey(one)}`;
}

function readIfThere(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return "";
    throw new UsageError(
      `Expected --resume to name a readable file but found "${path}": ${(cause as Error).message}`,
      { cause },
    );
  }
}

function notAJournal(path: string, found: string): UsageError {
  return new UsageError(
    `Expected --resume to name a new file or a journal but found "${path}", which begins with ${
      JSON.stringify(found.slice(0, 40))
    }`,
  );
}
