/**
 * What goes wrong around the library in a real program: the program goes on, or ends as it would.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";

import { preloadEnvironment, type PreloadSettings } from "chunkkv/llama-cpp";
import { storyText } from "../../bench/server/server.ts";
import { llamaProgram } from "../../tools/llama_server.ts";
import { repoRoot, smolLm2Path } from "../../tools/paths.ts";
import { run } from "../../tools/process.ts";
import { buildHost, SETTINGS } from "./host.ts";

const decoder = new TextDecoder();

async function withText(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "chunkkv-" });
  try {
    await Deno.writeTextFile(join(folder, "text"), storyText(1200));
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function start(folder: string, settings: PreloadSettings, env: Record<string, string> = {}) {
  const args = ["-m", smolLm2Path(), "-f", join(folder, "text"), "-n", "8", "-no-cnv", "-t", "1"];
  return new Deno.Command(llamaProgram("llama-completion"), {
    args: [...args, "--no-display-prompt", "-c", "1024", "--temp", "0"],
    env: { ...preloadEnvironment({ minTokens: 64, threads: 1, keep: 0.3, ...settings }), ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

Deno.test("a stats file on a full disk is named once, with the reason, and the program goes on", async () => {
  await withText(async (folder) => {
    const whole = await start(folder, {}).output();
    const full = await start(folder, { stats: "/dev/full", decodeBudget: 40, decodeSlack: 1 })
      .output();
    const said = decoder.decode(full.stderr);
    assertEquals([whole.code, full.code], [0, 0], said);
    const compactions = said.match(/tokens in the cache/g)?.length ?? 0;
    assert(compactions >= 2, `only ${compactions} lines to write: ${said}`);
    const words = said.match(/expected to append to \/dev\/full but found: No space left[^\n]*/g);
    assertEquals(words?.length, 1, said);
    const missing = await start(folder, { stats: join(folder, "none", "stats") }).output();
    assert(decoder.decode(missing.stderr).includes("but found: No such file or directory"));
    assertEquals(decoder.decode(missing.stdout), decoder.decode(whole.stdout));
  });
});

Deno.test("a host whose language has decimal commas is served, and its stats are JSON", async () => {
  await withText(async (folder) => {
    await run(["localedef", "-i", "de_DE", "-f", "UTF-8", join(folder, "de_DE.UTF-8")]);
    const [program = "", ...args] = await buildHost(folder, true);
    const stats = join(folder, "stats");
    const env = { ...SETTINGS, CHUNKKV_STATS: stats, LOCPATH: folder, LC_ALL: "de_DE.UTF-8" };
    const { stdout, stderr } = await new Deno.Command(program, { args, env }).output();
    assertEquals(decoder.decode(stdout), "36 cells, 0,5\n", decoder.decode(stderr));
    const line = JSON.parse((await Deno.readTextFile(stats)).trim());
    assert(line.event === "compacted" && line.select_ms > 0, JSON.stringify(line));
  });
});

Deno.test("a signal at any moment ends the program as it would without the library", async () => {
  await withText(async (folder) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      for (let wait = 0; wait < 4; wait++) {
        const child = start(folder, {}).spawn();
        const output = child.output();
        // The compaction is within the first seconds, at some moment of every run.
        await new Promise((done) => setTimeout(done, 300 + 700 * wait));
        try {
          child.kill(signal);
        } catch (error) {
          assert(error instanceof TypeError, "it has ended by itself");
        }
        const { code, signal: endedBy } = await output;
        const ended = endedBy ?? code;
        assert(
          ([signal, 0, 130] as unknown[]).includes(ended),
          `${signal} after ${wait}: ended by ${ended}`,
        );
      }
    }
  });
});

Deno.test("results that do not fit on the disk are bad usage, said with the reason", async () => {
  // Deno keeps /dev from programs that may not do all.
  const args = ["run", "--quiet", "--allow-all", "bench/main.ts", "info", "--json", "/dev/full"];
  const env = { NO_COLOR: "1" };
  const ended = await new Deno.Command(Deno.execPath(), { args, cwd: repoRoot(), env }).output();
  const [said, shown] = [decoder.decode(ended.stderr), decoder.decode(ended.stdout)];
  assertEquals(ended.code, 2, said);
  const words = 'Expected --json to name a writable file but found "/dev/full": No space left';
  assert(said.includes(words), said);
  assert(shown.includes("library"), "the results are on standard output all the same");
});
