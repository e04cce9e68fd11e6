import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { DemoRow } from "../../bench/engine/compare.ts";
import { checkReportPath, type Results } from "../../bench/report/results.ts";
import { UsageError } from "../../bench/usage.ts";
import { VERSION } from "../../bench/version.ts";
import { gemma3, smolLm2 } from "../bindings/llama_cpp/models.ts";
import { chunkkv } from "./run.ts";

const TEXT = "bench/data/red_headed_league.txt";

/** The text's first `characters`, in a file of its own. */
async function shortText(folder: string, characters: number): Promise<string> {
  const path = `${folder}/short.txt`;
  await Deno.writeTextFile(path, (await Deno.readTextFile(TEXT)).slice(0, characters));
  return path;
}

Deno.test("demo prints a table and writes the same rows as JSON", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const json = `${folder}/demo.json`;
    const text = await shortText(folder, 1400);
    const args = [
      "--text",
      text,
      "--question",
      "Who is Mr. Wilson?",
      "--max-tokens",
      "12",
      "--threads",
      "2",
    ];
    const { code, stdout, stderr } = await chunkkv([
      "demo",
      "--model",
      smolLm2(),
      ...args,
      "--json",
      json,
    ]);
    assertEquals(code, 0, stderr);
    const results: Results<DemoRow> = JSON.parse(await Deno.readTextFile(json));
    assertEquals(results.command, "demo");
    assertEquals(results.version, VERSION);
    assert(results.machine.cores >= 1 && results.model?.endsWith(".gguf"), "machine and model");
    const { rows } = results;
    assertEquals(
      rows.map(({ method, keep }) => `${method} ${keep}`),
      ["full 1", "chunkkv 0.3", "chunkkv 0.2", "chunkkv 0.1", "snapkv 0.1", "streaming_llm 0.1"],
    );
    const prompt = rows[0]!.kept_tokens;
    assert(prompt > 250, `Expected a prompt of more than 250 tokens but found ${prompt}`);
    // 30 layers, keys and values of 3 heads of 64 f16 numbers.
    assertEquals(rows[0]!.kv_mib, prompt * 30 * 2 * 3 * 64 * 2 / 2 ** 20);
    for (const row of rows) {
      assertEquals(row.kept_tokens, Math.floor(row.keep * prompt + 1e-9));
      assertEquals(row.kv_mib * prompt, rows[0]!.kv_mib * row.kept_tokens);
      assert(row.decode_tps > 0 && row.prefill_s > 0 && row.answer.length > 0);
      assert(row.kl !== null && row.kl >= 0 && Number.isFinite(row.kl));
      assertStringIncludes(stdout, row.method);
      assertStringIncludes(stdout, String(row.kept_tokens));
    }
    // Re-reading a restored cache is the same to the bit, dropping most of it is not.
    assertEquals(rows[0]!.kl, 0);
    assert(rows.every((row) => row.kl_tokens === 64), "KL is over 64 tokens");
    assert(rows[5]!.kl! > 1e-3, `Expected a divergence but found ${rows[5]!.kl}`);
    assert(rows[3]!.native_tps! > 0, "the lowest ratio is held against a native context");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("demo runs a model with sliding windows, whose old cells are gone", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const text = await shortText(folder, 3000);
    const args = ["--text", text, "--question", "Who is Mr. Wilson?", "--max-tokens", "4"];
    const { code, stdout, stderr } = await chunkkv(["demo", "--model", gemma3(), ...args]);
    assertEquals(code, 0, stderr);
    assertStringIncludes(stdout, "streaming_llm");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("info names the library, its instruction sets and the engine", async () => {
  const { code, stdout, stderr } = await chunkkv(["info"]);
  assertEquals(code, 0, stderr);
  for (const what of ["libchunkkv", "serial", "libllama"]) assertStringIncludes(stdout, what);
});

Deno.test("info says what is missing and how to get it", async () => {
  const { code, stdout } = await chunkkv(["info"], {
    CHUNKKV_LIBRARY: "/nowhere/libchunkkv.so",
    CHUNKKV_LLAMA_LIBRARY: "/nowhere/libllama.so",
  });
  assertEquals(code, 0);
  assertStringIncludes(stdout, "Expected libchunkkv at /nowhere/libchunkkv.so");
  assertStringIncludes(stdout, "/nowhere/libllama.so");
});

const BAD_USAGE: [string, string[], string][] = [
  ["an unknown command", ["nonsense"], "unknown command"],
  ["an unknown option", ["demo", "--nonsense"], "unknown option"],
  ["an answer of no tokens", ["demo", "--max-tokens", "0"], "whole number from 2 to 4096"],
  ["an answer of x tokens", ["demo", "--max-tokens", "x"], "whole number from 2 to 4096"],
  ["a question without words", ["demo", "--question", " "], "--question to have words"],
  ["no threads", ["demo", "--threads", "0"], "whole number from 1 to 1024"],
  [
    "a text that is not there",
    ["demo", "--text", "/nowhere.txt"],
    "--text to name a readable file",
  ],
  [
    "a model that is not there",
    ["demo", "--model", "/nowhere.gguf"],
    'a GGUF file but found none at "/nowhere.gguf"',
  ],
];

Deno.test("reports that cannot be written are bad usage before anything is computed", async () => {
  for (const option of ["--json", "--html"]) {
    const { code, stdout, stderr } = await chunkkv(["needle", "--quick", option, "/nowhere/file"]);
    assertEquals(code, 2, stderr);
    assertEquals(stdout, "");
    assertStringIncludes(stderr, `Expected ${option} to name a writable file`);
  }
});

Deno.test("looking whether a report can be written leaves files, links and pipes as they are", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const [file, link, missing] = ["file", "link", "missing"].map((name) => `${folder}/${name}`);
    await Deno.writeTextFile(file!, "before");
    await Deno.symlink(missing!, link!);
    for (const path of [file!, link!, missing!, "/dev/null"]) await checkReportPath(path, "--json");
    assertEquals(await Deno.readTextFile(file!), "before");
    assertEquals(await Deno.readLink(link!), missing);
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), ["file", "link"]);
    if (Deno.build.os === "linux") {
      const pipe = `${folder}/pipe`;
      await new Deno.Command("mkfifo", { args: [pipe] }).output();
      await checkReportPath(pipe, "--json"); // opening it would wait for a reader
    }
    await assertRejects(() => checkReportPath(folder, "--json"), UsageError, "writable file");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a text shorter than the window is bad usage; models have short names", async () => {
  const text = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(text, "A text.");
    const args = ["demo", "--model", "gemma3-270m", "--text", text, "--question", "?"];
    const { code, stderr } = await chunkkv(args);
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, "at least 32 tokens");
  } finally {
    await Deno.remove(text);
  }
});

for (const [what, args, words] of BAD_USAGE) {
  Deno.test(`${what} is bad usage: exit code 2 and words`, async () => {
    const { code, stderr } = await chunkkv(args);
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, words);
  });
}

Deno.test("a text longer than the model's context is bad usage that names the limit", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const text = `${folder}/long.txt`;
    await Deno.writeTextFile(text, (await Deno.readTextFile(TEXT)).repeat(3));
    const { code, stderr } = await chunkkv(["demo", "--model", smolLm2(), "--text", text]);
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, "Expected a text of at most");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a file that is no model fails: exit code 1 and what llama.cpp said", async () => {
  const { code, stderr } = await chunkkv(["demo", "--model", TEXT]);
  assertEquals(code, 1, stderr);
  assertStringIncludes(stderr, "error: Expected");
});

Deno.test({
  name: "Ctrl-C while a prompt is read stops it in order",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--allow-read",
        "--allow-env",
        "--allow-ffi",
        "--allow-sys",
        "bench/main.ts",
        "demo",
        "--model",
        smolLm2(),
      ],
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    // The prompt's length is printed right before it is read.
    for (let seen = ""; !seen.includes("tokens of prompt");) {
      const { value, done } = await reader.read();
      if (done) break;
      seen += value;
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
    child.kill("SIGINT");
    const error = await new Response(child.stderr).text();
    while (!(await reader.read()).done);
    const { code, signal } = await child.status;
    assertEquals({ code, signal }, { code: 1, signal: null });
    assertStringIncludes(error, "Stopped by Ctrl-C");
  },
});
