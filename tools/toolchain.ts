/**
 * What compiles the native libraries: the user's own tools, those from pip, or the system's.
 *
 * @module
 */
import { join } from "node:path";
import process from "node:process";

import { cacheDir, sitePackagesFile, venvProgram } from "./paths.ts";
import { which } from "./process.ts";

/** The programs to build with. */
export interface Toolchain {
  /** The cmake program. */
  cmake: string;
  /** The ninja program, or null: then cmake chooses a generator. */
  ninja: string | null;
  /** The C compiler and the arguments that it always gets. */
  compiler: string[];
  /** Environment for them. */
  env: Record<string, string>;
}

/** What zig calls a platform. The oldest glibc and macOS that are promised. */
export const ZIG_TARGETS: Record<string, string> = {
  "linux-x64": "x86_64-linux-gnu.2.28",
  "linux-arm64": "aarch64-linux-gnu.2.28",
  "darwin-arm64": "aarch64-macos.13.0",
  "darwin-x64": "x86_64-macos.13.0",
  "win32-x64": "x86_64-windows-gnu",
  "win32-arm64": "aarch64-windows-gnu",
};

/** True if the user named a compiler and there is a cmake, so that none need be installed. */
export function hasOwnTools(): boolean {
  return Boolean(process.env["CC"]) && ownCmake() !== null;
}

/**
 * Chooses the tools: `CC` and `CMAKE` first, then those that setup installed, then PATH.
 *
 * @throws {Error} If there is no compiler or no cmake.
 */
export function findToolchain(): Toolchain {
  const windows = process.platform === "win32" ? ".exe" : "";
  // The program itself: its launcher would start Python each time.
  const installed = sitePackagesFile("cmake", "data", "bin", `cmake${windows}`);
  const cmake = process.env["CMAKE"] || installed || which("cmake");
  if (!cmake) throw new Error(missing("cmake", "CMAKE"));

  const compiler = namedCompiler() ?? zigCompiler() ?? systemCompiler();
  if (!compiler) throw new Error(missing("a C11 compiler", "CC"));

  const env: Record<string, string> = {};
  if (!process.env["ZIG_GLOBAL_CACHE_DIR"]) env["ZIG_GLOBAL_CACHE_DIR"] = join(cacheDir(), "zig");
  return { cmake, ninja: venvProgram("ninja") ?? which("ninja"), compiler, env };
}

/** zig cc for this machine or `target`, with the arguments that it always gets; null: not installed. */
export function zigCompiler(
  target: string | undefined = ZIG_TARGETS[`${process.platform}-${process.arch}`],
): string[] | null {
  const zig = sitePackagesFile("ziglang", process.platform === "win32" ? "zig.exe" : "zig");
  return zig && target ? [zig, "cc", "-target", target] : null;
}

/** A C compiler in PATH, or null. */
export function systemCompiler(): string[] | null {
  const found = ["cc", "gcc", "clang"].map(which).find((path) => path !== null);
  return found ? [found] : null;
}

function namedCompiler(): string[] | null {
  const words = (process.env["CC"] ?? "").split(" ").filter((word) => word !== "");
  return words.length > 0 ? words : null;
}

function ownCmake(): string | null {
  return process.env["CMAKE"] || which("cmake");
}

function missing(what: string, variable: string): string {
  return `Expected ${what} from \`deno task setup\`, in PATH or named in ${variable} but found none`;
}
