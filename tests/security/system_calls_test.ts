/**
 * What a real program asks of the system with the library, beyond what it asks without.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";

import { preloadEnvironment } from "chunkkv/llama-cpp";
import { storyText } from "../../bench/server/server.ts";
import { llamaProgram } from "../../tools/llama_server.ts";
import { smolLm2Path } from "../../tools/paths.ts";
import { which } from "../../tools/process.ts";
import { builtLibrary } from "./elf.ts";

interface Trace {
  opened: Set<string>;
  written: Set<string>;
  calls: string[];
}

/** Runs llama-completion on a text under strace. */
async function trace(folder: string, env: Record<string, string>): Promise<Trace> {
  const strace = which("strace");
  assert(strace, "Expected strace in PATH but found none");
  const log = join(folder, "strace");
  const watched = "openat,open,creat,socket,connect,bind,execve,unlink,rename,mkdir,ptrace,setuid";
  const args = ["-m", smolLm2Path(), "-f", `${folder}/text`, "-n", "4", "-no-cnv", "-c", "1024"];
  const { code, stderr } = await new Deno.Command(strace, {
    args: [
      ...["-f", "-qq", "-e", `trace=${watched}`, "-o", log],
      ...Object.entries(env).flatMap(([name, value]) => ["-E", `${name}=${value}`]),
      ...[llamaProgram("llama-completion"), ...args, "-t", "1", "--temp", "0"],
    ],
    stdin: "null",
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  const lines = (await Deno.readTextFile(log)).split("\n");
  const files = lines.flatMap((line) => {
    const [, path = "", flags = ""] = /open(?:at)?\([^"]*"([^"]*)", ([A-Z_|]+).* = \d/.exec(line) ??
      [];
    return path ? [{ path, writes: /O_WRONLY|O_RDWR|O_CREAT/.test(flags) }] : [];
  });
  return {
    opened: new Set(files.map(({ path }) => path)),
    written: new Set(files.filter(({ writes }) => writes).map(({ path }) => path)),
    calls: lines.filter((line) => line !== "" && !/ open(?:at)?\(| \+\+\+ | --- /.test(line)),
  };
}

function added(with_: Set<string>, without: Set<string>): string[] {
  return [...with_].filter((path) => !without.has(path)).sort();
}

/** Calls by name, without arguments. */
function names(calls: string[]): string[] {
  return calls.map((line) => /^\d+ +(\w+)/.exec(line)?.[1] ?? line).sort();
}

Deno.test("the preloaded library opens its stats file and no other, and no socket", async () => {
  const folder = await Deno.makeTempDir({ prefix: "chunkkv-" });
  try {
    await Deno.writeTextFile(join(folder, "text"), storyText(1200));
    const stats = join(folder, "stats");
    const without = await trace(folder, {});
    const settings = { keep: 0.3, minTokens: 64, stats };
    const env = preloadEnvironment({ ...settings, threads: 1 });
    const own = await trace(folder, env);
    assert((await Deno.readTextFile(stats)).includes('"compacted"'), "nothing was compressed");
    const library = builtLibrary("chunkkv_preload");
    const loaded = /^\/.*\/(libpthread|libdl|libm|ld-linux[\w-]*|libc)\.so\.\d$/;
    const beyond = added(own.opened, without.opened).filter((path) => !loaded.test(path));
    assertEquals(beyond, [library, stats].sort());
    assertEquals(added(own.written, without.written), [stats]);
    assertEquals(names(own.calls), names(without.calls));
    // Without a number of threads it asks how many cores the process may use.
    const counting = await trace(folder, preloadEnvironment(settings));
    const asked = added(counting.opened, own.opened);
    assertEquals(
      asked.filter((path) => !/^\/(proc\/self\/cgroup$|sys\/fs\/cgroup\/)/.test(path)),
      [],
    );
    assertEquals(names(counting.calls), names(without.calls));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
