/**
 * The npm packages, in deno's own cache: those that the code imports, and the prebuilt libllama.
 *
 * @module
 */
import { join } from "node:path";
import process from "node:process";

import { enginePath } from "../bindings/llama_cpp/engine_path.ts";
import { buildDir, exists, repoRoot } from "./paths.ts";
import { capture } from "./process.ts";
import type { Step } from "./steps.ts";

/** The packages that deno.json names. */
export const npmPackages: Step = {
  title: "npm packages (under 1 MB)",
  otherwise: "run it again with a network; deno also fetches each when it first needs it",
  isDone: () => exists(importsStamp()) && Deno.readTextFileSync(importsStamp()) === imports(),
  run: async () => {
    await capture([Deno.execPath(), "install", "--quiet"], { cwd: repoRoot() });
    Deno.writeTextFileSync(importsStamp(), imports());
  },
};

/** The prebuilt libllama. */
export const llamaLibrary: Step = {
  title: "llama.cpp, prebuilt (npm, 11 MB)",
  otherwise: "name your own libllama in CHUNKKV_LLAMA_LIBRARY",
  isDone: () =>
    Boolean(process.env["CHUNKKV_LLAMA_LIBRARY"]) ||
    (exists(llamaStamp()) && exists(Deno.readTextFileSync(llamaStamp()))),
  // The engine's own look-up fetches it.
  run: async () => Deno.writeTextFileSync(llamaStamp(), await enginePath()),
};

function imports(): string {
  const config = JSON.parse(Deno.readTextFileSync(join(repoRoot(), "deno.json")));
  return JSON.stringify([config.imports, process.env["DENO_DIR"] ?? null]);
}

function importsStamp(): string {
  return join(buildDir(), ".npm-packages");
}

function llamaStamp(): string {
  return join(buildDir(), ".llama-package");
}
