/**
 * The C tests for arm64 on any machine: cross-compiled by zig, run by qemu.
 *
 * @module
 */
import { join } from "node:path";

import type { BuildOptions } from "./native.ts";
import { buildDir } from "./paths.ts";
import { which } from "./process.ts";
import { findToolchain, zigCompiler } from "./toolchain.ts";

// musl links without the system's own libraries, of which there are none for this processor here.
const TARGET = "aarch64-linux-musl";

/**
 * How to build and run for arm64.
 *
 * @throws {Error} If zig or qemu is missing.
 */
export function arm64(): { build: BuildOptions & { folder: string }; emulator: string } {
  const compiler = zigCompiler(TARGET);
  if (!compiler) throw new Error("Expected zig from `deno task setup` but found none");
  const emulator = which("qemu-aarch64") ?? which("qemu-aarch64-static");
  if (!emulator) {
    throw new Error(
      "Expected qemu-aarch64 in PATH but found none: install your system's qemu-user package",
    );
  }
  const build = {
    folder: join(buildDir(), "arm64"),
    toolchain: { ...findToolchain(), compiler },
    defines: ["CMAKE_SYSTEM_NAME=Linux", "CMAKE_SYSTEM_PROCESSOR=aarch64"],
    withoutBridge: true,
  };
  return { build, emulator };
}
