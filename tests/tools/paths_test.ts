import { join } from "node:path";

import { assert, assertEquals, assertThrows } from "@std/assert";

import {
  cacheDir,
  gemmaPath,
  gemmaTarget,
  llamaIncludeDir,
  NotSetUpError,
  repoRoot,
  smolLm2Path,
} from "../../tools/paths.ts";
import { withFolder } from "./scratch.ts";

async function withVariable(name: string, value: string, test: () => void | Promise<void>) {
  const before = Deno.env.get(name);
  Deno.env.set(name, value);
  try {
    await test();
  } finally {
    if (before === undefined) Deno.env.delete(name);
    else Deno.env.set(name, before);
  }
}

Deno.test("repoRoot() is the folder of deno.json", () => {
  assert(Deno.statSync(join(repoRoot(), "deno.json")).isFile);
});

Deno.test("cacheDir() follows CHUNKKV_CACHE, else the home folder", async () => {
  await withVariable("CHUNKKV_CACHE", "/somewhere", () => assertEquals(cacheDir(), "/somewhere"));
  await withVariable("CHUNKKV_CACHE", "", async () => {
    await withVariable("HOME", "/home/someone", () => {
      assertEquals(cacheDir(), join("/home/someone", ".cache", "chunkkv"));
    });
  });
});

Deno.test("both models are GGUF files", () => {
  for (const path of [smolLm2Path(), gemmaPath()]) {
    using file = Deno.openSync(path);
    const magic = new Uint8Array(4);
    file.readSync(magic);
    assertEquals(new TextDecoder().decode(magic), "GGUF");
  }
});

Deno.test("a missing model's error says how to get it and what else to do", async () => {
  await withFolder(async (folder) => {
    await withVariable("CHUNKKV_CACHE", folder, () => {
      const error = assertThrows(() => gemmaPath(), NotSetUpError, gemmaTarget());
      assert(error.message.includes("deno task setup") && error.message.includes("--model"));
    });
  });
});

Deno.test("llamaIncludeDir() wants a llama.h where CHUNKKV_LLAMA_INCLUDE points", async () => {
  await withFolder(async (folder) => {
    await withVariable("CHUNKKV_LLAMA_INCLUDE", folder, () => {
      assertThrows(() => llamaIncludeDir(), NotSetUpError, "CHUNKKV_LLAMA_INCLUDE");
      Deno.writeTextFileSync(join(folder, "llama.h"), "");
      assertEquals(llamaIncludeDir(), folder);
    });
  });
});
