/**
 * SmolLM2 once more, in a type that llama.cpp computes faster on CPUs than the package's.
 *
 * @module
 */
import { join } from "node:path";

import { makeWhole } from "./cache.ts";
import { exists, repoRoot, smolLm2Path, smolLm2Q8Target } from "./paths.ts";
import { capture } from "./process.ts";
import type { Step } from "./steps.ts";

/** The model file in the cache folder, made from the package's. */
export const smolLm2Q8: Step = {
  title: "SmolLM2-135M-Instruct with matrices in Q8_0 (145 MB)",
  otherwise: "use --model smollm2, which CPUs are slower with",
  isDone: () => exists(smolLm2Q8Target()),
  run: () =>
    makeWhole(smolLm2Q8Target(), async (scratch) => {
      const file = join(scratch, "model.gguf");
      const permissions = ["--allow-read", "--allow-env", "--allow-ffi"];
      const tool = join(repoRoot(), "tools", "requantize.ts");
      await capture([
        ...[Deno.execPath(), "run", "--quiet", ...permissions, tool],
        ...[smolLm2Path(), file],
      ]);
      return file;
    }),
};
