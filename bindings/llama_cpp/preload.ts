/**
 * The preloaded library: compression inside programs that use libllama, such as llama-server,
 * without a change to them. Linux; on macOS it is built but has not been run.
 *
 * @module
 */
import process from "node:process";
import { type MethodName, METHODS } from "../../ffi/enums.ts";
import { MAX_SPREAD } from "../../ffi/methods.ts";
import { libraryPaths } from "../../ffi/library_path.ts";
import { ChunkKvError } from "../../ffi/status.ts";

// What names libraries to load before a program's own.
const PRELOAD_VARIABLES: Record<string, string> = {
  linux: "LD_PRELOAD",
  darwin: "DYLD_INSERT_LIBRARIES",
};

/** One setting of the preloaded library. */
export interface PreloadSetting {
  /** Name of the field in {@linkcode PreloadSettings}. */
  name: keyof PreloadSettings;
  /** Environment variable that the library reads. */
  variable: string;
  /** What it means, and its default. */
  meaning: string;
  /** What its value is: a fraction, a whole number in a range, one of some names, or a text. */
  value: "fraction" | "text" | readonly [low: number, high: number] | readonly string[];
}

/** What the preloaded library does; fields that are not given have the library's defaults. */
export interface PreloadSettings {
  /** Fraction of a sequence's positions to keep, above 0 and at most 1; default 0.2. */
  keep?: number;
  /** Tokens to keep; wins over {@linkcode PreloadSettings.keep}. */
  budget?: number;
  /** `chunkkv`, `snapkv`, `streaming_llm` or `full`; default `chunkkv`. */
  method?: string;
  /** Tokens per chunk; default 10. */
  chunkSize?: number;
  /** Observation window in tokens, 1 to 64; default 32. */
  window?: number;
  /** Layers that share one selection; default 1. */
  reuse?: number;
  /** Tokens that share a token's score, itself and those after it: 1 to 64; default 1. */
  spread?: number;
  /** A prompt is compressed when it has brought more new tokens than this; default 512. */
  minTokens?: number;
  /** Tokens to which a sequence is compressed while it generates; default: never. */
  decodeBudget?: number;
  /** Tokens above `decodeBudget` at which that happens; default a quarter of it, at least 64. */
  decodeSlack?: number;
  /** Threads of the library's own; default one per core that the program may use. */
  threads?: number;
  /** `silent`, `warn`, `info` or `debug`; default `info`. */
  logLevel?: string;
  /** File to which a JSON line per compaction is appended; default none. */
  stats?: string;
}

const MOST = 2 ** 31 - 1;

// They look at whole prompts, or at every decode call.
const LIBRARY_METHODS: readonly string[] = ["h2o", "pyramidkv"] satisfies MethodName[];

/** All settings: the one list that the command line and the environment share. */
export const PRELOAD_SETTINGS: readonly PreloadSetting[] = [
  {
    name: "keep",
    variable: "CHUNKKV_KEEP",
    meaning: "fraction of the tokens to keep (default: 0.2)",
    value: "fraction",
  },
  {
    name: "budget",
    variable: "CHUNKKV_BUDGET",
    meaning: "tokens to keep, instead of a fraction",
    value: [1, MOST],
  },
  {
    name: "method",
    variable: "CHUNKKV_METHOD",
    meaning: "chunkkv, snapkv, streaming_llm or full (default: chunkkv)",
    value: Object.keys(METHODS).filter((name) => !LIBRARY_METHODS.includes(name)),
  },
  {
    name: "chunkSize",
    variable: "CHUNKKV_CHUNK_SIZE",
    meaning: "tokens in a chunk (default: 10)",
    value: [1, 2 ** 20],
  },
  {
    name: "window",
    variable: "CHUNKKV_WINDOW",
    meaning: "observation window in tokens (default: 32)",
    value: [1, 64],
  },
  {
    name: "reuse",
    variable: "CHUNKKV_REUSE",
    meaning: "layers that share one selection (default: 1)",
    value: [1, 1024],
  },
  {
    name: "spread",
    variable: "CHUNKKV_SPREAD",
    meaning: "tokens that share a token's score, itself and those after it (default: 1)",
    value: [1, MAX_SPREAD],
  },
  {
    name: "minTokens",
    variable: "CHUNKKV_MIN_TOKENS",
    meaning: "compress when more new tokens than this have come (default: 512)",
    value: [0, MOST],
  },
  {
    name: "decodeBudget",
    variable: "CHUNKKV_DECODE_BUDGET",
    meaning: "compress to so many tokens while generating, too (default: never)",
    value: [1, 2 ** 30 - 1],
  },
  {
    name: "decodeSlack",
    variable: "CHUNKKV_DECODE_SLACK",
    meaning: "tokens above that budget at which it happens (default: a quarter of it, at least 64)",
    value: [1, 2 ** 30 - 1],
  },
  {
    name: "threads",
    variable: "CHUNKKV_THREADS",
    meaning: "threads of the compression itself (default: one per core)",
    value: [0, 1024],
  },
  {
    name: "logLevel",
    variable: "CHUNKKV_LOG_LEVEL",
    meaning: "silent, warn, info or debug (default: info)",
    value: ["silent", "warn", "info", "debug"],
  },
  {
    name: "stats",
    variable: "CHUNKKV_STATS",
    meaning: "file to which a JSON line per compaction is appended",
    value: "text",
  },
];

/**
 * The library to preload: the file in `CHUNKKV_PRELOAD`, or what `deno task setup` has built
 * or npm installed.
 *
 * @throws {ChunkKvError} `unsupported` on systems other than Linux and macOS; `library_not_found` if it is not there.
 */
export function preloadLibraryPath(): string {
  if (!PRELOAD_VARIABLES[process.platform]) {
    throw new ChunkKvError(
      "unsupported",
      `Expected Linux or macOS, where libraries can be preloaded, but found ${process.platform}`,
    );
  }
  const { candidates } = libraryPaths("chunkkv_preload", "CHUNKKV_PRELOAD");
  let cause: unknown;
  for (const path of candidates) {
    try {
      Deno.statSync(path);
      return path;
    } catch (error) {
      cause = error;
    }
  }
  const places = candidates.join(" or ") || "a place that is known";
  const message = `Expected the preloaded library at ${places} but found nothing: run ` +
    "`deno task setup`, or name the file in CHUNKKV_PRELOAD";
  throw new ChunkKvError("library_not_found", message, { cause });
}

/**
 * The environment variables with which a program that uses libllama compresses its KV cache.
 *
 * @example llama-server with a fifth of its cache
 * ```ts
 * import { preloadEnvironment } from "chunkkv/llama-cpp";
 *
 * function serve(model: string): Deno.ChildProcess {
 *   const env = preloadEnvironment({ keep: 0.2 });
 *   return new Deno.Command("llama-server", { args: ["-m", model], env }).spawn();
 * }
 *
 * console.log(typeof serve);
 * ```
 *
 * @param settings What to do; the library checks the values itself and says on the program's stderr
 *   what it expected: the program then runs uncompressed.
 * @returns Variables to add to the program's environment.
 * @throws {ChunkKvError} As {@linkcode preloadLibraryPath}.
 */
export function preloadEnvironment(settings: PreloadSettings = {}): Record<string, string> {
  const path = preloadLibraryPath();
  const variable = PRELOAD_VARIABLES[process.platform] ?? "";
  const others = process.env[variable];
  const env: Record<string, string> = { [variable]: others ? `${path}:${others}` : path };
  // llama-server's checkpoints of sliding windows would lead it back into what was compacted.
  if (!process.env["LLAMA_ARG_CTX_CHECKPOINTS"]) env["LLAMA_ARG_CTX_CHECKPOINTS"] = "0";
  for (const { name, variable } of PRELOAD_SETTINGS) {
    const value = settings[name];
    if (value !== undefined) env[variable] = String(value);
  }
  return env;
}
