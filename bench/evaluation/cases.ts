/**
 * What is compared: methods, what they keep, and their settings.
 *
 * @module
 */
import type { CompressOptions } from "chunkkv/llama-cpp";

/** One way to compress. */
export interface Case {
  readonly method: string;
  /** Fraction of the prompt's tokens kept. */
  readonly keep: number;
  /** Neighbouring layers that share a selection. */
  readonly reuse: number;
}

/** Settings that all cases share. */
export interface CaseSettings {
  readonly chunkSize?: number;
  /** Observation window wanted; short prompts get a smaller one. */
  readonly window: number;
}

/** The cache as it is: what all others are compared with. */
export const FULL: Case = { method: "full", keep: 1, reuse: 1 };

/**
 * Every method with every fraction.
 *
 * @param methods Names; `full` is not one of them, as it is always there.
 * @param keeps Fractions.
 * @param reuse Neighbouring layers that share a selection.
 */
export function allCases(methods: readonly string[], keeps: readonly number[], reuse = 1): Case[] {
  return keeps.flatMap((keep) =>
    methods.filter((method) => method !== "full").map((method) => ({ method, keep, reuse }))
  );
}

/** A case's name, unique among those that are compared. */
export function caseKey({ method, keep, reuse }: Case): string {
  return reuse === 1 ? `${method} ${keep}` : `${method} ${keep} reuse ${reuse}`;
}

/**
 * The settings of a compression.
 *
 * @param one The case.
 * @param settings What all cases share.
 * @param tokens Tokens in the cache.
 * @returns Options for `LlamaContext.compress`. The window takes at most half of what is kept, so that
 * short prompts, too, keep something that was chosen.
 */
export function compressOptions(
  one: Case,
  settings: CaseSettings,
  tokens: number,
): CompressOptions & { window: number; budget: number } {
  const budget = Math.max(1, Math.floor(one.keep * tokens + 1e-9));
  return {
    method: one.method,
    budget,
    window: Math.max(1, Math.min(settings.window, Math.floor(budget / 2))),
    reuse: one.reuse,
    ...(settings.chunkSize === undefined ? {} : { chunkSize: settings.chunkSize }),
  };
}
