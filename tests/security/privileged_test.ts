/**
 * A program with more rights than its user: the environment is the user's, so nothing in it counts.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";

import { run } from "../../tools/process.ts";
import { buildHost, SETTINGS } from "./host.ts";

const NOBODY = 65534;

async function outcome([program, ...args]: string[], uid?: number, stats?: string) {
  const { code, stdout, stderr } = await new Deno.Command(program!, {
    args,
    env: { ...SETTINGS, ...stats ? { CHUNKKV_STATS: stats } : {} },
    ...uid === undefined ? {} : { uid, gid: uid },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code, said: decoder.decode(stdout), log: decoder.decode(stderr) };
}

Deno.test({
  name: "a setuid program is left as it is, and its user's settings are not read",
  ignore: Deno.uid() !== 0, // only root makes one
  fn: async () => {
    const folder = await Deno.makeTempDir({ prefix: "chunkkv-" });
    try {
      await Deno.chmod(folder, 0o755);
      const [program = "", engine = "", model = ""] = await buildHost(folder, true);
      // Readable for nobody, wherever the engine is.
      const stats = join(folder, "stats");
      const plain = await outcome([program, engine, model], undefined, stats);
      assertEquals([plain.code, plain.said], [0, "36 cells, 0.5\n"], plain.log);
      assert((await Deno.readTextFile(stats)).includes('"compacted"'));
      const setuid = join(folder, "setuid");
      await run(["cp", program, setuid]);
      await Deno.chmod(setuid, 0o4755);
      const other = join(folder, "other");
      const privileged = await outcome([setuid, engine, model], NOBODY, other);
      assertEquals([privileged.code, privileged.said], [0, "90 cells, 0.5\n"], privileged.log);
      assert(privileged.log.includes("this program has other rights than its user"));
      await Deno.stat(other).then(() => assert(false, "a stats file was made"), () => {});
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
