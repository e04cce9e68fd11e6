/**
 * docs/extending.md: its diffs are a patch that applies, compiles, and passes the tests in it.
 *
 * @module
 */
import { cpSync } from "node:fs";
import { join } from "node:path";

import { assertEquals } from "@std/assert";

import { repoRoot } from "../../tools/paths.ts";
import { run } from "../../tools/process.ts";
import { compileC } from "../ffi/c_compiler.ts";
import { withFolder } from "../tools/scratch.ts";
import { codeBlocks, readText } from "./markdown.ts";

const COPIED = ["csrc", "ffi", "mod.ts", "tests/assert.ts"];
const TESTS = ["tests/select/tokenkv_test.ts", "tests/score/e5m2_test.ts"];

function sources(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    if (isDirectory) return sources(`${folder}/${name}`);
    return name.endsWith(".c") ? [`${folder}/${name}`] : [];
  });
}

Deno.test("the new method and element type of docs/extending.md apply, compile and pass their tests", async () => {
  await withFolder(async (folder) => {
    for (const path of COPIED) {
      cpSync(join(repoRoot(), path), join(folder, path), { recursive: true });
    }
    const imports = { chunkkv: "./mod.ts", "@std/assert": "./tests/assert.ts" };
    Deno.writeTextFileSync(`${folder}/deno.json`, JSON.stringify({ imports }));
    const patch = codeBlocks(readText("docs/extending.md"), "diff").join("");
    Deno.writeTextFileSync(`${folder}/extending.patch`, patch);
    // A repository of its own: git leaves out what lies in another one.
    await run(["git", "init", "--quiet"], { cwd: folder });
    await run(["git", "apply", "extending.patch"], { cwd: folder });

    const library = `${folder}/libchunkkv.so`;
    const flags = ["-shared", "-fPIC", "-DCKV_BUILD", "-Wall", "-Wextra", "-Werror"];
    compileC("typedef int nothing;", library, [
      ...flags,
      ...sources(`${folder}/csrc/src`),
      "-lm",
      "-lpthread",
    ]);
    const args = ["test", "--no-lock", "--allow-read", "--allow-env", "--allow-ffi", ...TESTS];
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args,
      cwd: folder,
      env: { CHUNKKV_LIBRARY: library, NO_COLOR: "1" },
    }).output();
    const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    assertEquals(code, 0, said);
    assertEquals(/2 passed \| 0 failed/.test(said), true, said);
  });
});
