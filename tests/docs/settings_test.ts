/**
 * What the guides say of settings, methods and statistics is what the code has.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";

import { methodNames } from "chunkkv";
import { PRELOAD_SETTINGS } from "chunkkv/llama-cpp";
import { codeBlocks, readText } from "./markdown.ts";

const SERVER = readText("docs/llama-server.md");

/** Rows of all tables whose first cell is code: that code, and the whole line. */
function rows(text: string): Map<string, string> {
  return new Map([...text.matchAll(/^\| `([^`]+)`.*$/gm)].map(([line, name = ""]) => [name, line]));
}

Deno.test("docs/llama-server.md has every setting, with its option, range and default", () => {
  const table = rows(SERVER);
  for (const { name, variable, meaning, value } of PRELOAD_SETTINGS) {
    const line = table.get(variable);
    assert(line, `${variable} is missing`);
    const option = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    assert(line.includes(`\`--${option}\``), `${line}: no --${option}`);
    const [, usual = ""] = /\(default: ([\w.]+)\)/.exec(meaning) ?? [];
    if (usual !== "" && usual !== "never") assert(line.includes(usual), `${line}: no ${usual}`);
    if (typeof value === "string") continue;
    const most = value.at(-1);
    const least = value[0];
    if (typeof least !== "number") {
      for (const one of value) assert(line.includes(`\`${one}\``), `${line}: no ${one}`);
    } else if (typeof most === "number" && most <= 1024) {
      assert(line.includes(`${least} to ${most}`), `${line}: no ${least} to ${most}`);
    } else {
      assert(line.includes(`at least ${least}`), `${line}: no at least ${least}`);
    }
  }
});

Deno.test("docs/llama-server.md has every field of a line of the stats file", () => {
  const source = readText("bindings/llama_cpp/preload/say.c").replaceAll(/"\s*\n?\s*"/g, "");
  const fields = [...source.matchAll(/[{,]\\"(\w+)\\":/g)].map(([, field = ""]) => field);
  assertEquals(fields.length > 10, true, fields.join());
  const [sample] = codeBlocks(SERVER, "").filter((block) => block.startsWith('{"time"'));
  assertEquals(Object.keys(JSON.parse(sample ?? "{}")), fields);
  const table = rows(SERVER);
  assertEquals(fields.filter((field) => !table.has(field)), []);
});

Deno.test("docs/choosing.md has every method", () => {
  const table = rows(readText("docs/choosing.md"));
  assertEquals(methodNames().filter((name) => !table.has(name)), []);
});
