/**
 * Builds libchunkkv_cuda with nvcc, for all architectures in one file.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import process from "node:process";

import { ensureWritable } from "./cache.ts";
import { buildNative } from "./native.ts";
import { buildDir, exists, libraryName, repoRoot, sitePackagesFile } from "./paths.ts";
import { run, which } from "./process.ts";
import { buildTools, cudaTools, nvccPath } from "./python.ts";
import { runSteps } from "./steps.ts";
import { findToolchain } from "./toolchain.ts";

/** Machine code for these; PTX of the first serves all later ones. */
export const ARCHITECTURES = ["80", "86", "89", "90a", "100", "120"];

const LIBRARY = "libchunkkv_cuda.so";

// The host's code needs no C++ runtime, so the library links like one in C.
const HOST_FLAGS = "-fPIC,-fvisibility=hidden,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics," +
  "-Wall,-Wextra,-Werror";

/**
 * Installs the compilers where they are missing.
 *
 * @throws {Error} If one cannot be installed; why has been printed.
 */
export async function installCudaTools(): Promise<void> {
  const { failed } = await runSteps([buildTools, cudaTools], console.error);
  if (failed.length > 0) throw new Error("Expected the CUDA compiler but it cannot be installed");
}

/** Where the library is built: beside libchunkkv, which looks for it there. */
export function cudaLibrary(): string {
  return join(buildDir(), LIBRARY);
}

/** All that a machine with a GPU needs to run the tests: program and libraries, in one folder. */
export function cudaTestDir(): string {
  return join(buildDir(), "cuda");
}

/** Builds the test program, and puts the libraries beside it. */
export async function buildCudaTest(): Promise<void> {
  await buildNative({ targets: ["chunkkv", "cuda_test"] });
  for (const library of [cudaLibrary(), join(buildDir(), libraryName("chunkkv"))]) {
    Deno.copyFileSync(library, join(cudaTestDir(), basename(library)));
  }
}

/** Builds what looks at the launches' plans: host code that needs the compiler and no GPU. */
export async function buildPlanTest(): Promise<string> {
  const program = join(cudaTestDir(), "plan_test");
  const files = ["tests/cuda/plan_test.cu", "csrc/cuda/chunk_plan.cu", "csrc/cuda/score_plan.cu"];
  const nvcc = findNvcc();
  await run([
    ...[nvcc, "-std=c++17", "-arch=sm_80", "-L", join(dirname(nvcc), "..", "lib"), "-o", program],
    ...files.map((file) => join(repoRoot(), file)),
  ]);
  return program;
}

/**
 * Compiles what has changed since the last time and links it.
 *
 * @param architectures Which ones; fewer of {@linkcode ARCHITECTURES} build faster.
 * @throws {Error} If a tool is missing, or the compiler refused something.
 */
export async function buildCuda(architectures: string[] = ARCHITECTURES): Promise<void> {
  const nvcc = findNvcc();
  const folder = join(buildDir(), "cuda-objects", architectures.join("-"));
  ensureWritable(folder, "Make it writable or work on a copy");
  const language = ["-std=c++17", "-O3", "--compress-mode=size", "-Xcompiler", HOST_FLAGS];
  const command = [
    nvcc,
    "-c",
    "--threads",
    "2",
    ...language,
    "-Werror",
    "all-warnings",
    ...codeFor(architectures),
  ];
  const objects = await compileAll(sources(), folder, command);
  await link(objects, folder);
}

function findNvcc(): string {
  if (process.platform !== "linux") {
    throw new Error(`Expected Linux, which libchunkkv_cuda is for, but found ${process.platform}`);
  }
  const nvcc = nvccPath();
  if (!nvcc) throw new Error("Expected nvcc in .venv but found none: run `deno task build:cuda`");
  if (!which("g++")) {
    throw new Error(
      "Expected g++ in PATH, which nvcc compiles host code with, but found none: install it (on " +
        "Debian: the package g++)",
    );
  }
  return nvcc;
}

function codeFor(architectures: string[]): string[] {
  return architectures.flatMap((name, index) => {
    const code = index === 0 && !name.endsWith("a") ? `[compute_${name},sm_${name}]` : `sm_${name}`;
    return ["-gencode", `arch=compute_${name},code=${code}`];
  });
}

function sources(): string[] {
  return filesIn("csrc/cuda").filter((path) => path.endsWith(".cu")).sort();
}

function filesIn(folder: string): string[] {
  const path = join(repoRoot(), folder);
  return [...Deno.readDirSync(path)].map(({ name }) => join(path, name));
}

/** Compiles, two architectures of a file at a time and as many files as there are cores for. */
async function compileAll(files: string[], folder: string, command: string[]): Promise<string[]> {
  const headers = digest([
    command.join(" "),
    ...[...filesIn("csrc/cuda"), ...filesIn("csrc/include")]
      .filter((path) => /\.(h|cuh)$/.test(path)).sort().map(Deno.readTextFileSync),
  ]);
  const waiting = [...files];
  const work = async () => {
    for (let file; (file = waiting.shift()) !== undefined;) {
      await compileOne(file, objectOf(file, folder), command, headers);
    }
  };
  const workers = Math.max(1, Math.floor(navigator.hardwareConcurrency / 2));
  await Promise.all(Array.from({ length: workers }, work));
  return files.map((file) => objectOf(file, folder));
}

async function compileOne(file: string, object: string, command: string[], headers: string) {
  const state = digest([headers, Deno.readTextFileSync(file)]);
  if (exists(object) && readStamp(object) === state) return;
  console.log(`nvcc ${basename(file)}`);
  await run([...command, file, "-o", object]);
  writeStamp(object, state);
}

async function link(objects: string[], folder: string): Promise<void> {
  const state = digest([folder, ...objects.map((object) => readStamp(object) ?? "")]);
  if (exists(cudaLibrary()) && readStamp(cudaLibrary()) === state) return;
  const runtime = sitePackagesFile("nvidia", "cu13", "lib", "libcudart_static.a");
  if (!runtime) throw new Error("Expected libcudart_static.a in .venv but found none");
  const { compiler, env } = findToolchain();
  const map = join(repoRoot(), "csrc", "cuda", "exports.map");
  const options = [
    "-shared",
    "-s",
    "-Wl,-z,defs",
    `-Wl,--version-script=${map}`,
    "-ldl",
    "-lpthread",
    "-lrt",
  ];
  await run([...compiler, ...objects, runtime, ...options, "-o", cudaLibrary()], { env });
  writeStamp(cudaLibrary(), state);
}

function objectOf(file: string, folder: string): string {
  return join(folder, `${basename(file, ".cu")}.o`);
}

function digest(parts: string[]): string {
  return createHash("sha256").update(parts.join("\0")).digest("hex");
}

function readStamp(path: string): string | null {
  return exists(`${path}.stamp`) ? Deno.readTextFileSync(`${path}.stamp`) : null;
}

function writeStamp(path: string, state: string): void {
  Deno.writeTextFileSync(`${path}.stamp`, state);
}
