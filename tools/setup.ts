/**
 * `deno task setup`: provides all that the project needs, and does nothing when it is there.
 *
 * @module
 */
import { dirname } from "node:path";

import { Command } from "commander";

import { ensureWritable, sweep, withLock } from "./cache.ts";
import { gemmaModel } from "./gemma.ts";
import { llamaRelease } from "./llama_release.ts";
import { llamaBridge, nativeLibrary } from "./native.ts";
import { llamaLibrary, npmPackages } from "./npm_packages.ts";
import { buildDir, cacheDir, gemmaTarget } from "./paths.ts";
import { explain } from "./process.ts";
import { buildTools, modelPackages } from "./python.ts";
import { smolLm2Q8 } from "./smollm2.ts";
import { runSteps, type Step } from "./steps.ts";

const native = [buildTools, llamaRelease, nativeLibrary, llamaBridge];
const models = [modelPackages, gemmaModel, smolLm2Q8];

const program = new Command("deno task setup")
  .description("Installs tools and models, and builds the native libraries; all once only.")
  .option("--native", "only the native libraries")
  .option("--no-models", "no models: you have your own GGUF file")
  .option("--keep-going", "succeed as long as libchunkkv can be built")
  .parse();
const options = program.opts<{ native?: true; models: boolean; keepGoing?: true }>();
const extras = options.native ? [] : [npmPackages, llamaLibrary, ...options.models ? models : []];

try {
  Deno.exit(await setUp([...native, ...extras], options.keepGoing ?? false));
} catch (error) {
  console.error(explain(error));
  Deno.exit(1);
}

async function setUp(steps: Step[], keepGoing: boolean): Promise<number> {
  if (await allDone(steps)) return 0;
  ensureWritable(buildDir(), "Make it writable or work on a copy");
  ensureWritable(cacheDir());
  const wait = () => console.error("Waiting for another setup to finish ...");
  return await withLock(buildDir(), () =>
    withLock(cacheDir(), async () => {
      sweep(cacheDir());
      sweep(dirname(gemmaTarget()));
      const { failed } = await runSteps(steps, console.error);
      const stops = keepGoing ? failed.filter((step) => step.essential) : failed;
      return stops.length === 0 ? 0 : 1;
    }, wait), wait);
}

async function allDone(steps: Step[]): Promise<boolean> {
  for (const step of steps) {
    try {
      if (!await step.isDone()) return false;
    } catch {
      return false;
    }
  }
  return true;
}
