/**
 * The native libraries of one platform, cross-compiled by zig.
 *
 * @module
 */
import { join } from "node:path";

import { libraryFileName } from "../../ffi/library_path.ts";
import { cudaLibrary } from "../cuda.ts";
import { buildNative } from "../native.ts";
import { buildDir, exists, llamaIncludeDir } from "../paths.ts";
import { findToolchain, ZIG_TARGETS, zigCompiler } from "../toolchain.ts";
import type { Gap, Target } from "./targets.ts";

/** Paths of what was built, and what there is none of. */
export interface Libraries {
  files: string[];
  gaps: Gap[];
}

/**
 * Builds the libraries of one platform.
 *
 * @throws {Error} If a tool is missing, or the compiler refused something.
 */
export async function buildLibraries(target: Target): Promise<Libraries> {
  const compiler = zigCompiler(ZIG_TARGETS[target.name]);
  if (!compiler) throw new Error("Expected zig from `deno task setup` but found none");
  llamaIncludeDir(); // throws with a remedy where there are no headers for the bridge
  const gaps: Gap[] = [];
  const lacks = (what: string, why: string) => gaps.push({ target: target.name, what, why });

  const targets = ["chunkkv", "chunkkv_llama"];
  if (target.os !== "windows") targets.push("chunkkv_preload");
  else lacks("chunkkv_preload", "Windows has no way to load a library before a program's own");

  const folder = join(buildDir(), "package", target.name);
  const toolchain = { ...findToolchain(), compiler };
  await buildNative({ folder, toolchain, targets, defines: ["CKV_TESTS=OFF", ...target.defines] });
  const files = targets.map((name) => join(folder, libraryFileName(name, target.os)));

  if (target.name !== "linux-x64") lacks("chunkkv_cuda", "built for Linux on x64 alone");
  else if (exists(cudaLibrary())) files.push(cudaLibrary());
  else lacks("chunkkv_cuda", "not built here: --cuda builds it");
  return { files, gaps };
}
