/**
 * The real models that the tests run, and where they are. A missing one fails the test.
 *
 * @module
 */
import { ENGINE_VARIABLE } from "chunkkv/llama-cpp";

import { exists, gemmaPath, smolLm2Path } from "../../../tools/paths.ts";

/** SmolLM2-135M-Instruct, or the model that `CHUNKKV_MODEL` names. */
export function smolLm2(): string {
  const chosen = Deno.env.get("CHUNKKV_MODEL");
  if (!chosen) return smolLm2Path();
  if (exists(chosen)) return chosen;
  throw new Error(`Expected a model at CHUNKKV_MODEL=${chosen} but found no such file`);
}

/** Gemma 3 270M, which has layers with sliding windows, or the model that `CHUNKKV_MODEL_GEMMA` names. */
export function gemma3(): string {
  const chosen = Deno.env.get("CHUNKKV_MODEL_GEMMA");
  if (!chosen) return gemmaPath();
  if (exists(chosen)) return chosen;
  throw new Error(`Expected a model at CHUNKKV_MODEL_GEMMA=${chosen} but found no such file`);
}

/** Layers that go to a GPU: `CHUNKKV_TEST_GPU_LAYERS`, by default none. */
export const LOAD_OPTIONS = { gpuLayers: Number(Deno.env.get("CHUNKKV_TEST_GPU_LAYERS") ?? 0) };

/**
 * Threads that the tests compute with: bits are only the same at the same number. More than one
 * would wait for each other at every step, which takes forever on a busy machine.
 */
export const THREADS = 1;

export { ENGINE_VARIABLE };
