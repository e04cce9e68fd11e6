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

const PRELOAD = "bindings/llama_cpp/preload";

/** Files of the bridge that the preloaded library is made of. */
function sharedFiles(): string[] {
  const names = /set\(shared ([^)]*)\)/.exec(readText(`${PRELOAD}/parts.cmake`))?.[1] ?? "";
  return names.trim().split(/\s+/).map((name) => `bindings/llama_cpp/csrc/${name}.c`);
}

/** The beginning of the longest piece of a message that is always the same. */
function fixedPart(message: string): string {
  return message.split("…").reduce((a, b) => b.length > a.length ? b : a).slice(0, 40).trim();
}

Deno.test("docs/troubleshooting.md has every reason for which the preloaded library leaves a cache alone", () => {
  const guide = readText("docs/troubleshooting.md").replaceAll(/\s+/g, " ");
  const reasons = sharedFiles().flatMap((
    path,
  ) => [...said(readText(path)).matchAll(/CKV_ERROR_(?:UNSUPPORTED|ENGINE), "([^"]*)"/g)]);
  const warnings = sources(PRELOAD).flatMap((
    path,
  ) => [...said(readText(path)).matchAll(/ckvp_say\(CKVP_WARN, "([^"]*)/g)]);
  assertEquals(reasons.length > 30 && warnings.length > 6, true, `${reasons.length} reasons`);
  const missing = [...reasons, ...warnings].map(([, message = ""]) => message)
    .filter((message) => !guide.includes(fixedPart(message)));
  assertEquals(missing, []);
});
