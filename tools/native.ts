/**
 * Builds the native libraries and the C tests with cmake.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import process from "node:process";

import { ensureWritable } from "./cache.ts";
import {
  buildDir,
  exists,
  libraryName,
  llamaIncludeDir,
  NotSetUpError,
  repoRoot,
} from "./paths.ts";
import { run } from "./process.ts";
import type { Step } from "./steps.ts";
import { findToolchain, type Toolchain } from "./toolchain.ts";

/** Whatever a native library is made of. */
export const SOURCES = [
  "csrc",
  "bindings/llama_cpp/csrc",
  "bindings/llama_cpp/preload",
  "bench/native",
];

/** What {@linkcode buildNative} builds, and how. */
export interface BuildOptions {
  /** The repository to build; default: {@linkcode repoRoot}. */
  source?: string;
  /** The folder to build in; default: {@linkcode buildDir}. */
  folder?: string;
  /** Default: {@linkcode findToolchain}. */
  toolchain?: Toolchain;
  /** Targets to build; none means everything. */
  targets?: string[];
  /** More cmake definitions, without their `-D`. */
  defines?: string[];
  /** Leave the llama.cpp bridge out. */
  withoutBridge?: boolean;
}

/** libchunkkv, which needs nothing but a compiler. */
export const nativeLibrary: Step = {
  title: "libchunkkv (cmake)",
  otherwise: "name a compiler in CC, or a built library in CHUNKKV_LIBRARY",
  essential: true,
  isDone: () => isBuilt("chunkkv"),
  run: () => buildLibrary("chunkkv"),
};

/** The bridge to llama.cpp, which needs its headers. */
export const llamaBridge: Step = {
  title: "llama.cpp bridge (cmake)",
  otherwise:
    "name a folder that has llama.h in CHUNKKV_LLAMA_INCLUDE, and the release that it is " +
    "from in CHUNKKV_LLAMA_VERSION",
  isDone: () => isBuilt("chunkkv_llama"),
  run: () => {
    llamaIncludeDir();
    return buildLibrary("chunkkv_llama");
  },
};

/**
 * Builds what has changed since the last time.
 *
 * @throws {Error} If a tool is missing, or the compiler refused something.
 */
export async function buildNative(options: BuildOptions = {}): Promise<void> {
  const { folder = buildDir(), toolchain = findToolchain(), targets = [] } = options;
  ensureWritable(folder, "Make it writable or work on a copy");
  await configure(folder, toolchain, options);
  const chosen = targets.flatMap((target) => ["--target", target]);
  const jobs = String(navigator.hardwareConcurrency);
  await run([toolchain.cmake, "--build", folder, "--parallel", jobs, ...chosen], toolchain);
}

/** Runs cmake where its arguments are not those of the last time. */
async function configure(folder: string, toolchain: Toolchain, options: BuildOptions) {
  const args = configureArguments(folder, toolchain, options);
  if (isConfigured(folder, args)) return;
  // cmake keeps a compiler that it once chose; its --fresh is too new for some.
  for (const remembered of [".configured", "CMakeCache.txt", "CMakeFiles"]) {
    const path = join(folder, remembered);
    if (exists(path)) Deno.removeSync(path, { recursive: true });
  }
  await run([toolchain.cmake, ...args], toolchain);
  Deno.writeTextFileSync(configuredStamp(folder), JSON.stringify(args));
}

function isConfigured(folder: string, args: string[]): boolean {
  const stamp = configuredStamp(folder);
  return exists(stamp) && Deno.readTextFileSync(stamp) === JSON.stringify(args);
}

function configuredStamp(folder: string): string {
  return join(folder, ".configured");
}

function configureArguments(folder: string, toolchain: Toolchain, options: BuildOptions): string[] {
  const include = options.withoutBridge ? null : bridgeHeaders();
  return [
    ...["-S", join(options.source ?? repoRoot(), "csrc"), "-B", folder],
    ...(toolchain.ninja ? ["-G", "Ninja", `-DCMAKE_MAKE_PROGRAM=${toolchain.ninja}`] : []),
    `-DCMAKE_C_COMPILER=${toolchain.compiler.join(";")}`,
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCKV_TESTS=ON",
    `-DCKV_LLAMA_INCLUDE=${include ?? ""}`,
    `-DCKV_LLAMA_VERSION=${process.env["CHUNKKV_LLAMA_VERSION"] ?? ""}`,
    ...(options.defines ?? []).map((define) => `-D${define}`),
  ];
}

function bridgeHeaders(): string | null {
  try {
    return llamaIncludeDir();
  } catch (error) {
    if (error instanceof NotSetUpError) return null;
    throw error;
  }
}

/** True if nothing that goes into the library has changed since it was built. */
function isBuilt(target: string): boolean {
  const stamp = builtStamp(target);
  if (!exists(stamp) || !exists(join(buildDir(), libraryName(target)))) return false;
  return Deno.readTextFileSync(stamp) === fingerprint();
}

async function buildLibrary(target: string): Promise<void> {
  // Taken before: what is edited during the build counts as changed.
  const before = fingerprint();
  await buildNative({ targets: [target] });
  Deno.writeTextFileSync(builtStamp(target), before);
}

/** The state of all that goes into a library: how it is configured, and every source file. */
function fingerprint(): string {
  const lines = [JSON.stringify(configureArguments(buildDir(), findToolchain(), {}))];
  const visit = (path: string) => {
    const { isDirectory, size, mtime } = Deno.statSync(path);
    if (!isDirectory) lines.push(`${path} ${size} ${mtime?.getTime()}`);
    else for (const { name } of Deno.readDirSync(path)) visit(join(path, name));
  };
  for (const part of SOURCES) visit(join(repoRoot(), part));
  return createHash("sha256").update(lines.sort().join("\n")).digest("hex");
}

function builtStamp(target: string): string {
  return join(buildDir(), `.built-${target}`);
}
