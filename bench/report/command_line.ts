/**
 * The command that makes results again.
 *
 * @module
 */
import type { Results } from "./results.ts";

// Options that are on unless they are forbidden.
const NEGATED = new Set(["answers"]);

/** As typed in a shell: `deno task chunkkv needle --lengths 1000,2000`. */
export function commandLine({ command, args }: Results<unknown>): string {
  const words = ["deno", "task", "chunkkv", command];
  for (const [name, value] of Object.entries(args)) {
    if (NEGATED.has(name)) {
      if (value === false) words.push(`--no-${name}`);
      continue;
    }
    if (value === undefined || value === null || value === false) continue;
    words.push(`--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`);
    if (value !== true) words.push(quoted(Array.isArray(value) ? value.join(",") : String(value)));
  }
  return words.join(" ");
}

function quoted(word: string): string {
  return /^[\w./:,=@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
