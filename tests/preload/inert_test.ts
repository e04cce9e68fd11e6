import { assertEquals } from "@std/assert";
import { preloadEnvironment } from "chunkkv/llama-cpp";

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
