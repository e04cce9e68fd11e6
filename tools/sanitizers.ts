/**
 * A compiler that checks memory and undefined behaviour at run time.
 *
 * @module
 */
import { join } from "node:path";

import { capture } from "./process.ts";
import { findToolchain, systemCompiler, type Toolchain, zigCompiler } from "./toolchain.ts";

/** How to build and run with sanitizers. */
export interface Sanitizers {
  /** The tools. */
  toolchain: Toolchain;
  /** cmake definitions. */
  defines: string[];
  /** Environment for the programs built. */
  env: Record<string, string>;
  /** Which ones, for the user. */
  says: string;
}

/**
 * AddressSanitizer and UndefinedBehaviorSanitizer of gcc or clang, where one is in PATH and has
 * their libraries; else UndefinedBehaviorSanitizer of zig.
 *
 * @throws {Error} If there is neither.
 */
export async function sanitizers(): Promise<Sanitizers> {
  const compiler = systemCompiler();
  const env = {
    ASAN_OPTIONS: "detect_leaks=1:strict_string_checks=1",
    UBSAN_OPTIONS: "print_stacktrace=1",
  };
  if (compiler && await links([...compiler, "-fsanitize=address,undefined"])) {
    const version = (await capture([...compiler, "--version"])).split("\n")[0];
    const says = `AddressSanitizer and UndefinedBehaviorSanitizer of ${version}`;
    const toolchain = { ...findToolchain(), compiler };
    return { toolchain, defines: ["CKV_SANITIZE=address,undefined"], env, says };
  }
  const zig = zigCompiler();
  if (!zig) throw new Error("Expected gcc, clang or zig with sanitizers but found none");
  const flags = "-fsanitize=undefined -fno-sanitize-recover=all -g";
  const says = "UndefinedBehaviorSanitizer of zig cc; AddressSanitizer needs gcc or clang in PATH";
  const toolchain = { ...findToolchain(), compiler: zig };
  return { toolchain, defines: [`CMAKE_C_FLAGS=${flags}`], env, says };
}

/**
 * ThreadSanitizer of gcc or clang.
 *
 * @throws {Error} If neither has it.
 */
export async function threadSanitizer(): Promise<Sanitizers> {
  const compiler = systemCompiler();
  if (!compiler || !await links([...compiler, "-fsanitize=thread"])) {
    throw new Error("Expected gcc or clang with ThreadSanitizer in PATH but found none");
  }
  return {
    toolchain: { ...findToolchain(), compiler },
    defines: ["CKV_SANITIZE=thread"],
    env: { TSAN_OPTIONS: "halt_on_error=1:second_deadlock_stack=1" },
    says: `ThreadSanitizer of ${(await capture([...compiler, "--version"])).split("\n")[0]}`,
  };
}

async function links(compiler: string[]): Promise<boolean> {
  const folder = Deno.makeTempDirSync();
  try {
    const source = join(folder, "probe.c");
    Deno.writeTextFileSync(source, "int main(void) { return 0; }\n");
    await capture([...compiler, source, "-o", join(folder, "probe")]);
    return true;
  } catch {
    return false;
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}
