/**
 * Options that the evaluating commands share.
 *
 * @module
 */
import type { Command } from "commander";
import { MAX_SPREAD, methodNames } from "chunkkv";
import { exists, gemmaPath, smolLm2Path, smolLm2Q8Path } from "../../tools/paths.ts";
import { fraction, integer, list, UsageError } from "../usage.ts";

const NAMED = { "smollm2": smolLm2Path, "smollm2-q8_0": smolLm2Q8Path, "gemma3-270m": gemmaPath };

/** Models that have names. */
export const MODELS = Object.keys(NAMED).join(", ");

/** Options of every command that runs a model. */
export interface ModelOptions {
  model: string;
  threads?: number;
  gpuLayers: number;
  methods?: string[];
  keeps: number[];
  chunkSize?: number[];
  window: number[];
  spread?: number[];
  reuse: number;
  json?: string;
  html?: string;
  quick?: boolean;
}

/** Options of the benchmarks. */
export interface EvaluationOptions extends ModelOptions {
  data?: string;
  limit?: number;
  seed: number;
  contextSize: number;
  question: "in" | "after";
  queryText?: string;
  klTokens: number;
  nllTokens: number;
  answers: boolean;
  /** Examples that are evaluated at the same time. */
  workers: number;
  resume?: string;
}

/** Adds the options of every command that runs a model. */
export function addModelOptions(command: Command): Command {
  return command
    .option("--model <FILE>", `a GGUF model, or ${MODELS} from setup`, "smollm2")
    .option("--threads <N>", "threads (default: one per core)", integer("--threads", 1, 1024))
    .option(
      "--gpu-layers <N>",
      "layers on a GPU if the engine has one; -1: all",
      integer("--gpu-layers", -1),
      0,
    )
    .option(
      "--methods <LIST>",
      "methods to compare with the full cache (default: all)",
      list("--methods", methodName),
    )
    .option(
      "--keeps <LIST>",
      "fractions of the prompt's tokens to keep",
      list("--keeps", fraction("--keeps")),
      [0.3, 0.2, 0.1],
    )
    .option(
      "--chunk-size <LIST>",
      "tokens in a chunk (default: 10)",
      list("--chunk-size", integer("--chunk-size", 1)),
    )
    .option(
      "--window <LIST>",
      "observation window, tokens",
      list("--window", integer("--window", 1, 64)),
      [32],
    )
    .option(
      "--spread <LIST>",
      "tokens that share a token's score, itself and those after it (default: 1)",
      list("--spread", integer("--spread", 1, MAX_SPREAD)),
    )
    .option("--reuse <N>", "layers that share one selection", integer("--reuse", 1), 1)
    .option("--quick", "few and short examples: shows that everything runs")
    .option("--json <FILE>", "write the rows as JSON too")
    .option("--html <FILE>", "write a report with plots too");
}

/** Adds the options of a benchmark. */
export function addEvaluationOptions(command: Command): Command {
  return addModelOptions(command)
    .option("--data <DIR>", "the data set (default: a tiny sample)")
    .option("--limit <N>", "most examples a task", integer("--limit", 1))
    .option("--seed <N>", "of everything that is drawn", integer("--seed", 0), 0)
    .option(
      "--context-size <N>",
      "leave out examples that do not fit in so many tokens",
      integer("--context-size", 64),
      8192,
    )
    .option(
      "--question <WHEN>",
      "in: it is there when the cache is compressed; after: read afterwards",
      when,
      "in",
    )
    .option("--query-text <TEXT>", "with after: read as the observation window, then removed")
    .option(
      "--kl-tokens <N>",
      "tokens that kl is the mean over",
      integer("--kl-tokens", 1, 512),
      64,
    )
    .option(
      "--nll-tokens <N>",
      "most tokens of a reference answer that nll is the mean over",
      integer("--nll-tokens", 1, 512),
      64,
    )
    .option("--no-answers", "nll and kl alone: compressed caches are not asked for answers")
    .option(
      "--workers <N>",
      "examples at a time, each with its share of the threads",
      integer("--workers", 1, 64),
      1,
    )
    .option("--resume <FILE>", "keep rows in a journal; one that is there is continued");
}

/**
 * The path of a model that may be named in short.
 *
 * @throws {UsageError} If a path names no file.
 */
export function modelPath(name: string): string {
  if (Object.hasOwn(NAMED, name)) return NAMED[name as keyof typeof NAMED]();
  if (exists(name)) return name;
  throw new UsageError(
    `Expected --model to be ${MODELS} or a GGUF file but found none at "${name}"`,
  );
}

/**
 * The methods that were asked for, by default all that compress.
 *
 * @throws {UsageError} If one of them does not go with the other options.
 */
export function comparedMethods(
  options: Pick<ModelOptions, "methods"> & { queryText?: string; question?: "in" | "after" },
): string[] {
  if (options.queryText !== undefined && options.question === "in") {
    throw new UsageError("Expected --query-text only with --question after");
  }
  const names: readonly string[] = options.methods ?? methodNames();
  const methods = names.filter((name) => name !== "full");
  if (options.queryText === undefined || !methods.includes("pyramidkv")) return methods;
  if (options.methods === undefined) return methods.filter((name) => name !== "pyramidkv");
  throw new UsageError(
    "Expected --query-text without pyramidkv, whose layers keep different numbers of tokens",
  );
}

function methodName(text: string): string {
  const names: readonly string[] = methodNames();
  if (names.includes(text)) return text;
  throw new UsageError(`Expected --methods out of ${names.join(", ")} but found "${text}"`);
}

function when(text: string): string {
  if (text === "in" || text === "after") return text;
  throw new UsageError(`Expected --question to be in or after but found "${text}"`);
}
