import { join } from "node:path";

import { assert, assertEquals, assertStringIncludes } from "@std/assert";

import { exists, libraryName, repoRoot } from "../../tools/paths.ts";
import { findToolchain } from "../../tools/toolchain.ts";
import { withFolder } from "./scratch.ts";

const ALLOW = ["read", "write", "env", "run", "sys"].map((name) => `--allow-${name}`);

/** Runs setup of the repository at `root`; no network is needed for any test here. */
async function setUp(root: string, args: string[], env: Record<string, string>) {
  const script = join(root, "tools", "setup.ts");
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--cached-only", ...ALLOW, script, ...args],
    env: { NO_COLOR: "1", ...env },
    cwd: root,
  }).output();
  const decoder = new TextDecoder();
  return { code, output: decoder.decode(stdout) + decoder.decode(stderr) };
}

/** A copy of what setup needs, as a fresh clone has it. */
async function withClone(test: (root: string) => Promise<void>): Promise<void> {
  await withFolder(async (root) => {
    for (
      const part of ["deno.json", "deno.lock", "tools", "csrc", "bindings", "ffi", "bench", "tests"]
    ) {
      copy(join(repoRoot(), part), join(root, part));
    }
    await test(root);
  });
}

function copy(from: string, to: string): void {
  if (!Deno.statSync(from).isDirectory) return Deno.copyFileSync(from, to);
  Deno.mkdirSync(to);
  for (const { name } of Deno.readDirSync(from)) copy(join(from, name), join(to, name));
}

Deno.test("setup does nothing and says nothing when all is there", async () => {
  const start = performance.now();
  assertEquals(await setUp(repoRoot(), [], {}), { code: 0, output: "" });
  // It takes well under a second; the limit leaves room for a busy machine.
  assert(performance.now() - start < 5000);
});

Deno.test("setup names the folder when the cache cannot be written", async () => {
  await withClone(async (root) => {
    const file = join(root, "file");
    Deno.writeTextFileSync(file, "");
    const cache = join(file, "cache");
    const { code, output } = await setUp(root, ["--native"], { CHUNKKV_CACHE: cache });
    assertEquals(code, 1);
    assertStringIncludes(output, `Expected the folder ${cache} to be writable but found`);
    assertStringIncludes(output, "Set CHUNKKV_CACHE");
  });
});

Deno.test("setup without Python, Node, git or a compiler says what is missing", async () => {
  await withClone(async (root) => {
    const env = { PATH: join(root, "nothing"), CHUNKKV_CACHE: join(root, "cache") };
    const { code, output } = await setUp(root, ["--native", "--keep-going"], env);
    assertEquals(code, 1);
    assertStringIncludes(output, "Expected Python 3.9 or newer");
    assertStringIncludes(output, "Instead: install cmake and a C11 compiler, or name them in");
    assertStringIncludes(
      output,
      "Expected cmake from `deno task setup`, in PATH or named in CMAKE",
    );
  });
});

Deno.test("setup without Python builds with the tools named in CC and CMAKE", async () => {
  const { cmake, ninja, compiler, env } = findToolchain();
  await withClone(async (root) => {
    const tools = join(root, "bin");
    Deno.mkdirSync(tools);
    if (ninja) Deno.symlinkSync(ninja, join(tools, "ninja"));
    const variables = {
      ...env,
      PATH: tools,
      CC: compiler.join(" "),
      CMAKE: cmake,
      CHUNKKV_CACHE: join(root, "cache"),
    };
    const first = await setUp(root, ["--native", "--keep-going"], variables);
    assertEquals(first.code, 0, first.output);
    assert(!exists(join(root, ".venv")));
    assert(exists(join(root, "build", libraryName("chunkkv"))));
    assertStringIncludes(first.output, "name a folder that has llama.h in CHUNKKV_LLAMA_INCLUDE");
  });
});
