/**
 * The project's Markdown files, and what stands in them.
 *
 * @module
 */
import { join } from "node:path";

import { repoRoot } from "../../tools/paths.ts";

// Built, installed or recorded: not written here.
const LEFT_OUT = new Set(["build", ".venv", "node_modules", ".git", "data"]);

/** Paths of all Markdown files, from the repository's root. */
export function markdownFiles(folder = ""): string[] {
  return [...Deno.readDirSync(join(repoRoot(), folder))].flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory) return LEFT_OUT.has(entry.name) ? [] : markdownFiles(path);
    return entry.name.endsWith(".md") ? [path] : [];
  }).sort();
}

/** The text of a file of the repository. */
export function readText(path: string): string {
  return Deno.readTextFileSync(join(repoRoot(), path));
}

/** The fenced blocks of a language, in order; "" for those without one. */
export function codeBlocks(text: string, language: string): string[] {
  return [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)]
    .filter(([, found]) => found === language)
    .map(([, , code = ""]) => code);
}
