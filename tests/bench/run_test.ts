import { assert, assertEquals } from "@std/assert";

import { PRELOAD_SETTINGS } from "chunkkv/llama-cpp";

/** Runs the command line; it needs no model. */
async function chunkkv(...args: string[]) {
  const permissions = ["read", "write", "env", "ffi", "sys", "run"].map((one) => `--allow-${one}`);
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", ...permissions, "bench/main.ts", ...args],
    cwd: new URL("../..", import.meta.url),
  }).output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), said: decoder.decode(stderr) };
}

const linux = Deno.build.os === "linux";

Deno.test({
  name: "run starts a program with the library, its settings and its arguments",
  ignore: !linux,
  fn: async () => {
    const options = ["--keep", "0.3", "--chunk-size", "20", "--stats", "/tmp/none"];
    const script = 'echo "$LD_PRELOAD|$CHUNKKV_KEEP|$CHUNKKV_CHUNK_SIZE|$CHUNKKV_STATS|$1"; exit 7';
    const run = await chunkkv("run", ...options, "--", "sh", "-c", script, "sh", "--keep");
    assertEquals([run.code, run.said], [7, ""]);
    const [library = "", ...rest] = run.out.trimEnd().split("|");
    assert(library.endsWith("libchunkkv_preload.so"), library);
    assertEquals(rest, ["0.3", "20", "/tmp/none", "--keep"]);
  },
});

Deno.test({
  name: "run says what is wrong with its options",
  ignore: !linux,
  fn: async () => {
    const cases: [string[], string][] = [
      [["--keep", "2", "--", "sh"], 'Expected --keep to be above 0 and at most 1 but found "2"'],
      [["--window", "65", "--", "sh"], "Expected --window to be a whole number from 1 to 64"],
      [["--method", "magic", "--", "sh"], "Expected --method to be one of chunkkv"],
      [["--", "no-such-program"], 'Expected a program to run but found no "no-such-program"'],
      [[], "missing required argument"],
    ];
    for (const [args, text] of cases) {
      const run = await chunkkv("run", ...args);
      assertEquals(run.code, 2, run.said);
      assert(run.said.includes(text), run.said);
    }
  },
});

Deno.test("the README has every setting of the preloaded library", async () => {
  const readme = await Deno.readTextFile(new URL("../../README.md", import.meta.url));
  for (const { variable, name } of PRELOAD_SETTINGS) {
    const option = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    assert(readme.includes(`\`${variable}\``), `${variable} is missing`);
    assert(readme.includes(`\`${option}\``), `${option} is missing`);
  }
});
