/**
 * docs/troubleshooting.md: every message in it is one of the sources'.
 *
 * @module
 */
import { join } from "node:path";

import { assertEquals } from "@std/assert";

import { repoRoot } from "../../tools/paths.ts";
import { readText } from "./markdown.ts";

const FOLDERS = ["csrc/src", "csrc/cuda", "bindings", "ffi", "tools", "bench/commands"];
const SOURCE = /\.(c|h|cu|cuh|ts|py)$/;

function sources(folder: string): string[] {
  return [...Deno.readDirSync(join(repoRoot(), folder))].flatMap(({ name, isDirectory }) => {
    if (isDirectory) return sources(join(folder, name));
    return SOURCE.test(name) ? [join(folder, name)] : [];
  });
}

/** Texts as they are said: parts in one piece, and what differs as an ellipsis. */
function said(code: string): string {
  return code
    .replaceAll(/["`']\s*\+?\s*\n\s*(\/\/.*\n\s*)*["`']/g, "") // a text in several lines
    .replaceAll(/"\s*[A-Z_]+\s*"/g, "…") // a macro between texts
    .replaceAll(/\$\{[^{}]*(\{[^{}]*\})?[^{}]*\}/g, "…")
    .replaceAll(/%(\.\d+)?(ll|z)?[a-z0-9]*[dsxgu]/g, "…")
    .replaceAll(/\\["'`]|`/g, '"')
    .replaceAll(/\s+/g, " ");
}

/** The messages of a table's first column. */
function messages(text: string): string[] {
  const cells = text.split("\n").filter((line) => line.startsWith("| `"))
    .map((line) => line.split(" | ")[0] ?? "");
  return cells.flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map(([, one = ""]) => one));
}

Deno.test("every message of docs/troubleshooting.md is one that the sources say", () => {
  const all = FOLDERS.flatMap(sources).map((path) => said(readText(path))).join("\n");
  const quoted = messages(readText("docs/troubleshooting.md"));
  assertEquals(quoted.length > 60, true, `${quoted.length} messages`);
  const unknown = quoted.filter((message) => !all.includes(message.replaceAll(/^… | …$/g, "")));
  assertEquals(unknown, []);
});
