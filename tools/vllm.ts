/**
 * vLLM and its tests: a Python environment in the cache folder, and pytest in it.
 *
 * @module
 */
import { join } from "node:path";

import { buildNative } from "./native.ts";
import { buildDir, libraryName, repoRoot } from "./paths.ts";
import { capture, tee } from "./process.ts";
import { type Counts, readSummary } from "./test_summary.ts";

/** Makes the environment and the model where they are missing; returns its Python. */
export async function vllmPython(): Promise<string> {
  const lines = await capture(["bash", join(repoRoot(), "bindings", "vllm", "setup.sh")]);
  return lines.split("\n").at(-1) ?? "";
}

/** Runs the tests of the vLLM plugin; the filter is pytest's `-k`. */
export async function testVllm(filter: string | undefined): Promise<Counts> {
  const python = await vllmPython();
  await buildNative(); // the fake CUDA library too
  const filters = filter === undefined ? [] : ["-k", filter];
  // Most of the time engines start, one thread each: two at once take half of it.
  const two = ["-n", "2", "--dist", "worksteal"];
  const pytest = [python, "-m", "pytest", "-v", "--color=no", "--durations=5", ...two];
  const { code, output } = await tee([
    ...pytest,
    // No cache folder in the repository.
    ...["-p", "no:cacheprovider", ...filters],
    join(repoRoot(), "tests", "vllm"),
  ], {
    cwd: repoRoot(),
    env: {
      CHUNKKV_LIBRARY: join(buildDir(), libraryName("chunkkv")),
      CHUNKKV_CUDA_LIBRARY: join(buildDir(), libraryName("chunkkv_cuda_fake")),
      CHUNKKV_DENO: Deno.execPath(),
    },
  });
  return readSummary(output, code);
}
