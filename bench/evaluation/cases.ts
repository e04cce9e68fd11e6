/**
 * What is compared: methods, what they keep, and their settings.
 *
 * @module
 */
import { chunkKv, methodByName } from "chunkkv";
import type { CompressOptions } from "chunkkv/llama-cpp";

/** One way to compress. */
export interface Case {
  readonly method: string;
  /** Fraction of the prompt's tokens kept. */
  readonly keep: number;
  /** Neighbouring layers that share a selection. */
  readonly reuse: number;
  /** Tokens in a chunk, where several sizes are compared. */
  readonly chunk_size?: number;
  /** Observation window asked for, where several are compared. */
  readonly window_size?: number;
  /** Tokens that share a token's score, where several are compared. */
  readonly spread?: number;
}

/** Settings that are compared with each other where there are several. */
export interface CaseSettings {
  readonly chunkSize?: readonly number[];
  /** Observation windows wanted; short prompts get smaller ones. */
  readonly window: readonly number[];
  readonly spread?: readonly number[];
}

/** The cache as it is: what all others are compared with. */
export const FULL: Case = { method: "full", keep: 1, reuse: 1 };

/**
 * Every method with every fraction, chunk size, window and spread that it depends on.
 *
 * @param methods Names; `full` is not one of them, as it is always there.
 * @param keeps Fractions.
 * @param settings Cases name what has several values.
 * @param reuse Neighbouring layers that share a selection.
 */
export function allCases(
  methods: readonly string[],
  keeps: readonly number[],
  settings: CaseSettings,
  reuse = 1,
): Case[] {
  return keeps.flatMap((keep) =>
    methods.filter((method) => method !== "full").flatMap((method) => {
      const has = methodByName(method);
      const sizes = several("chunk_size", "chunkSize" in has ? settings.chunkSize : undefined);
      const windows = several("window_size", "window" in has ? settings.window : undefined);
      const spreads = several("spread", "spread" in has ? settings.spread : undefined);
      return sizes.flatMap((size) =>
        windows.flatMap((window) =>
          spreads.map((spread) => ({ method, keep, reuse, ...size, ...window, ...spread }))
        )
      );
    })
  );
}

/** The values to compare by name; where there are none, one unnamed case. */
function several(
  name: "chunk_size" | "window_size" | "spread",
  values: readonly number[] | undefined,
): readonly Partial<Case>[] {
  return values && values.length > 1 ? values.map((value) => ({ [name]: value })) : [{}];
}

/** The method's name with its settings that are not the same for all. */
export function methodLabel(one: Omit<Case, "keep">): string {
  const { method, reuse, chunk_size, window_size, spread } = one;
  return [
    method,
    ...(reuse > 1 ? [`N=${reuse}`] : []),
    ...(chunk_size === undefined ? [] : [`c=${chunk_size}`]),
    ...(window_size === undefined ? [] : [`w=${window_size}`]),
    ...(spread === undefined ? [] : [`s=${spread}`]),
  ].join(" ");
}

/** A case's name, unique among those that are compared. */
export function caseKey(one: Case): string {
  return `${methodLabel(one)} ${one.keep}`;
}

/**
 * The settings of a compression.
 *
 * @param one The case.
 * @param settings For what the case does not name: the first of each.
 * @param tokens Tokens in the cache.
 * @returns Options for `LlamaContext.compress`. The window takes at most half of what is kept, so that
 * short prompts, too, keep something that was chosen; a chunk takes at most the whole prompt.
 */
export function compressOptions(
  one: Case,
  settings: CaseSettings,
  tokens: number,
): CompressOptions & { window: number; budget: number } {
  const budget = Math.max(1, Math.floor(one.keep * tokens + 1e-9));
  const window = one.window_size ?? settings.window[0]!;
  const chunkSize = one.chunk_size ?? settings.chunkSize?.[0];
  const isShort = tokens < (chunkSize ?? chunkKv().chunkSize);
  const spread = one.spread ?? settings.spread?.[0];
  return {
    method: one.method,
    budget,
    window: Math.max(1, Math.min(window, Math.floor(budget / 2))),
    reuse: one.reuse,
    ...(isShort ? { chunkSize: tokens } : chunkSize === undefined ? {} : { chunkSize }),
    ...(spread === undefined ? {} : { spread }),
  };
}
