import { assert, assertEquals } from "@std/assert";

import { PRELOAD_SETTINGS } from "chunkkv/llama-cpp";
import { chunkkv } from "./run.ts";

const linux = Deno.build.os === "linux";

Deno.test({
  name: "run starts a program with the library, its settings and its arguments",
  ignore: !linux,
  fn: async () => {
    const options = ["--keep", "0.3", "--chunk-size", "20", "--stats", "/tmp/none"];
    const script = 'echo "$LD_PRELOAD|$CHUNKKV_KEEP|$CHUNKKV_CHUNK_SIZE|$CHUNKKV_STATS|$1"; exit 7';
    const run = await chunkkv(["run", ...options, "--", "sh", "-c", script, "sh", "--keep"]);
    assertEquals([run.code, run.stderr], [7, ""]);
    const [library = "", ...rest] = run.stdout.trimEnd().split("|");
    assert(library.endsWith("libchunkkv_preload.so"), library);
    assertEquals(rest, ["0.3", "20", "/tmp/none", "--keep"]);
  },
});

Deno.test({
  name: "run starts the program in the folder that the user is in",
  ignore: !linux,
  fn: async () => {
    const folder = await Deno.realPath(await Deno.makeTempDir());
    try {
      // The task runs in the repository; deno and npm tell in INIT_CWD where it was called.
      const run = await chunkkv(["run", "--", "pwd"], { INIT_CWD: folder });
      assertEquals([run.code, run.stdout, run.stderr], [0, `${folder}\n`, ""]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "run says what is wrong with its options",
  ignore: !linux,
  fn: async () => {
    const cases: [string[], string][] = [
      [["--keep", "2", "--", "sh"], 'Expected --keep to be above 0 and at most 1 but found "2"'],
      [["--window", "65", "--", "sh"], "Expected --window to be a whole number from 1 to 64"],
      [["--method", "magic", "--", "sh"], "Expected --method to be one of full, streaming_llm"],
      [["--method", "h2o", "--", "sh"], 'streaming_llm, snapkv, chunkkv but found "h2o"'],
      [["--method", "pyramidkv", "--", "sh"], 'snapkv, chunkkv but found "pyramidkv"'],
      [["--", "no-such-program"], 'Expected a program to run but found no "no-such-program"'],
      [["--", "/"], 'Expected a program to run but found that "/" may not be'],
      [[], "missing required argument"],
    ];
    for (const [args, text] of cases) {
      const run = await chunkkv(["run", ...args]);
      assertEquals(run.code, 2, run.stderr);
      assert(run.stderr.includes(text), run.stderr);
    }
  },
});

Deno.test({
  name: "run says of a program with llama.cpp inside that it runs on untouched",
  ignore: !linux,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      // A program of the system with the text in it that tells.
      const own = `${folder}/own`;
      const text = new TextEncoder().encode("cache_k_l%d");
      await Deno.copyFile("/bin/echo", own);
      await Deno.writeFile(own, text, { append: true });
      const run = await chunkkv(["run", "--", own, "hello"]);
      assertEquals([run.code, run.stdout], [0, "hello\n"]);
      assert(run.stderr.includes("it runs on untouched"), run.stderr);
      const other = await chunkkv(["run", "--", "/bin/echo", "hello"]);
      assertEquals([other.code, other.stdout, other.stderr], [0, "hello\n", ""]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "a program that looks llama_decode up itself runs on untouched, with one line",
  ignore: !linux,
  fn: async () => {
    const permissions = ["read", "env", "ffi", "sys"].map((one) => `--allow-${one}`);
    const script = ["run", "--quiet", ...permissions, "tests/bench/one_turn.ts"];
    const run = await chunkkv(["run", "--", Deno.execPath(), ...script]);
    assertEquals(run.code, 0, run.stderr);
    assertEquals(run.stdout, "700 tokens in 700 cells\n");
    const lines = run.stderr.match(/chunkkv: .*/g) ?? [];
    assertEquals(lines.length, 1, run.stderr);
    assert(lines[0]?.includes("does not call llama_decode by name"), run.stderr);
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
