/**
 * Typed errors, and a context to provoke them in.
 *
 * @module
 */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  ChunkKvError,
  type ChunkKvErrorCode,
  type LlamaContext,
  type LlamaContextOptions,
  type LlamaModel,
} from "chunkkv/llama-cpp";

import { THREADS } from "./models.ts";
import { storyTokens } from "./prompts.ts";

/** Tokens of the prompt in {@linkcode prefilled}. */
export const TOKENS = 60;

/** A small context. */
export const settings = { contextSize: 256, threads: THREADS };

/** A small context with a prompt in it. */
export async function prefilled(
  model: LlamaModel,
  options: LlamaContextOptions = {},
): Promise<LlamaContext> {
  const context = model.createContext({ ...settings, ...options });
  await context.prefill(storyTokens(model, TOKENS));
  return context;
}

/** Fails unless `run` throws a {@linkcode ChunkKvError} with this code, whose message includes the text. */
export function throws(run: () => unknown, code: ChunkKvErrorCode, includes: string): void {
  assertEquals(assertThrows(run, ChunkKvError, includes).code, code);
}

/** Fails unless `run` rejects with a {@linkcode ChunkKvError} with this code, whose message includes the text. */
export async function rejects(
  run: () => Promise<unknown>,
  code: ChunkKvErrorCode,
  includes: string,
): Promise<void> {
  assertEquals((await assertRejects(run, ChunkKvError, includes)).code, code);
}
