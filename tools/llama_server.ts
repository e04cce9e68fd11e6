/**
 * Stock programs of llama.cpp, built from the source that belongs to the prebuilt libraries: what the
 * preloaded library is tested in.
 *
 * @module
 */
import { join } from "node:path";
import process from "node:process";

import { ensureWritable, makeWhole, withLock } from "./cache.ts";
import { cacheDir, exists, llamaReleaseDir, NotSetUpError } from "./paths.ts";
import { capture, run, which } from "./process.ts";
import { findToolchain, type Toolchain, zigCompiler } from "./toolchain.ts";

const PROGRAMS = ["llama-server", "llama-completion"];

// Nothing that the tests do not use.
const OPTIONS = [
  "CMAKE_BUILD_TYPE=Release",
  "CMAKE_BUILD_RPATH_USE_ORIGIN=ON",
  ...["LLAMA_CURL", "LLAMA_OPENSSL", "LLAMA_BUILD_UI", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES"]
    .map((name) => `${name}=OFF`),
];

/**
 * A program of llama.cpp: from the folder in `CHUNKKV_LLAMA_BIN`, or built by
 * {@linkcode buildLlamaServer}.
 *
 * @throws {NotSetUpError} If it is not there.
 */
export function llamaProgram(name: string): string {
  const folder = process.env["CHUNKKV_LLAMA_BIN"] ?? join(llamaReleaseDir(), "bin");
  const path = join(folder, name);
  if (exists(path)) return path;
  throw new NotSetUpError(
    `Expected ${name} at ${path} but found nothing: run \`deno task test:preload\`, or name a ` +
      "folder that has it in CHUNKKV_LLAMA_BIN",
  );
}

/** Builds the programs where they are not there: some ten minutes on two cores, once. */
export async function buildLlamaServer(): Promise<void> {
  const target = join(llamaReleaseDir(), "bin");
  if (process.env["CHUNKKV_LLAMA_BIN"] || exists(target)) return;
  ensureWritable(cacheDir());
  await withLock(cacheDir(), async () => {
    if (exists(target)) return;
    console.log(`Building ${PROGRAMS.join(" and ")} of llama.cpp, once; some ten minutes ...`);
    await makeWhole(target, (scratch) => build(scratch, findToolchain()));
  }, () => console.error("Waiting for a setup to finish ..."));
}

async function build(scratch: string, toolchain: Toolchain): Promise<string> {
  const source = join(scratch, "llama.cpp");
  const folder = join(scratch, "build");
  await capture(["git", "clone", "--quiet", join(llamaReleaseDir(), "llama.cpp.bundle"), source]);
  const [c, cxx] = compilers(toolchain);
  const generator = toolchain.ninja
    ? ["-G", "Ninja", `-DCMAKE_MAKE_PROGRAM=${toolchain.ninja}`]
    : [];
  const defines = [...OPTIONS, `CMAKE_C_COMPILER=${c}`, `CMAKE_CXX_COMPILER=${cxx}`];
  const options = defines.map((define) => `-D${define}`);
  await capture([toolchain.cmake, "-S", source, "-B", folder, ...generator, ...options], toolchain);
  const targets = PROGRAMS.flatMap((name) => ["--target", name]);
  const jobs = ["--parallel", String(navigator.hardwareConcurrency)];
  await run([toolchain.cmake, "--build", folder, ...jobs, ...targets], toolchain);
  return join(folder, "bin");
}

/** The system's own where there are any: they are what such programs are built with. */
function compilers({ compiler }: Toolchain): [string, string] {
  const [cc, cxx] = [which("cc"), which("c++")];
  if (cc && cxx) return [cc, cxx];
  const zig = zigCompiler();
  if (!zig) throw new Error(`Expected a C++ compiler beside ${compiler.join(" ")} but found none`);
  return [zig.join(";"), zig.map((word) => word === "cc" ? "c++" : word).join(";")];
}
