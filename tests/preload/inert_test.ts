import { assertEquals } from "@std/assert";
import { preloadEnvironment } from "chunkkv/llama-cpp";

import { compileC } from "../ffi/c_compiler.ts";

const PROGRAMS: Record<string, string[]> = {
  sh: ["sh", "-c", "echo hi; exit 3"],
  node: ["node", "-e", "console.log(6 * 7); process.exitCode = 4"],
  // Loads a shared object at run time and starts threads.
  python: [
    "python3",
    "-c",
    "import sqlite3, sys, threading\n" +
    "thread = threading.Thread(target=lambda: print(sqlite3.connect(':memory:') is not None))\n" +
    "thread.start(); thread.join(); sys.exit(5)",
  ],
};

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

async function outcome([program, ...args]: string[], env = {}): Promise<Ended> {
  const ended = await new Deno.Command(program!, { args, env, stdin: "null" }).output();
  const decoder = new TextDecoder();
  const { code, stdout, stderr } = ended;
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

for (const [name, command] of Object.entries(PROGRAMS)) {
  Deno.test(`${name}, which has no llama, runs as without the preloaded library`, async () => {
    const stats = await Deno.makeTempFile({ prefix: "chunkkv-" });
    try {
      const without = await outcome(command);
      assertEquals(without.stderr, "");
      assertEquals(without.stdout.length > 0 && without.code > 0, true);
      // A setting that makes no sense is no business of such a program either.
      for (const keep of [0.3, 2]) {
        const env = preloadEnvironment({ keep, stats, logLevel: "debug" });
        assertEquals(await outcome(command, env), without);
      }
      assertEquals(await Deno.readTextFile(stats), "");
    } finally {
      await Deno.remove(stats);
    }
  });
}

Deno.test("a program that the library is preloaded into has it", async () => {
  const env = preloadEnvironment();
  const { stdout } = await outcome(["cat", "/proc/self/maps"], env);
  assertEquals(/chunkkv_preload/.test(stdout), true, stdout);
});

// llama.cpp as a part of another shared object, which exports it: its own calls can be stood in for.
const ENGINE = `
#include <stdbool.h>
#include <stdint.h>
static int freed;
bool llama_memory_seq_rm(void *memory, int32_t seq, int32_t p0, int32_t p1) {
  return memory == &freed && seq == 1 && p0 == 2 && p1 == 3;
}
void ggml_backend_sched_free(void *sched) { freed += sched == &freed; }
int32_t llama_memory_seq_pos_min(void *memory, int32_t seq) { return memory ? seq : -7; }
int use(void) {
  ggml_backend_sched_free(&freed);
  return llama_memory_seq_rm(&freed, 1, 2, 3) + 10 * freed + 100 * llama_memory_seq_pos_min(&freed, 5);
}`;

Deno.test("an engine inside another library works as without the preloaded one", async () => {
  const folder = await Deno.makeTempDir({ prefix: "chunkkv-" });
  try {
    const engine = `${folder}/addon.so`;
    compileC(ENGINE, engine, ["-shared", "-fPIC", "-O0", "-fsemantic-interposition"]);
    for (const mode of ["RTLD_LOCAL", "RTLD_GLOBAL"]) {
      const load = `ctypes.CDLL("${engine}", mode=ctypes.${mode})`;
      const command = ["python3", "-c", `import ctypes; print(${load}.use())`];
      const expected = { code: 0, stdout: "511\n", stderr: "" };
      assertEquals(await outcome(command), expected);
      assertEquals(await outcome(command, preloadEnvironment({ keep: 0.3 })), expected);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
