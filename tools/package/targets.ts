/**
 * The platforms that packages are made for.
 *
 * @module
 */

/** One platform. */
export interface Target {
  /** What npm calls it, and zig's table in `toolchain.ts`: `linux-x64`. */
  name: string;
  /** As in `Deno.build`. */
  os: "linux" | "darwin" | "windows";
  /** As in `Deno.build`. */
  arch: "x86_64" | "aarch64";
  /** cmake's definitions for building it anywhere. */
  defines: string[];
  /** The wheel's platform, or why there is none. */
  wheel: string | { missing: string };
}

/** A part that a target lacks. */
export interface Gap {
  target: string;
  what: string;
  why: string;
}

/** All of them. */
export const TARGETS: Target[] = [
  {
    name: "linux-x64",
    os: "linux",
    arch: "x86_64",
    defines: system("Linux", "x86_64"),
    wheel: "manylinux_2_28_x86_64",
  },
  {
    name: "linux-arm64",
    os: "linux",
    arch: "aarch64",
    defines: system("Linux", "aarch64"),
    wheel: "manylinux_2_28_aarch64",
  },
  {
    name: "darwin-x64",
    os: "darwin",
    arch: "x86_64",
    defines: system("Darwin", "x86_64"),
    wheel: "macosx_13_0_x86_64",
  },
  {
    name: "darwin-arm64",
    os: "darwin",
    arch: "aarch64",
    defines: system("Darwin", "arm64"),
    wheel: "macosx_13_0_arm64",
  },
  {
    name: "win32-x64",
    os: "windows",
    arch: "x86_64",
    defines: system("Windows", "AMD64"),
    wheel: { missing: "vLLM does not run on Windows" },
  },
];

/** The folder of a package that holds its libraries, as `ffi/library_path.ts` looks for them. */
export function libraryFolder({ os, arch }: Target): string {
  return `lib/${os}-${arch}`;
}

function system(name: string, processor: string): string[] {
  return [`CMAKE_SYSTEM_NAME=${name}`, `CMAKE_SYSTEM_PROCESSOR=${processor}`];
}
