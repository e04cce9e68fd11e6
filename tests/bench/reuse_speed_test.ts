import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { methodLabel } from "../../bench/evaluation/cases.ts";
import { evaluated, NEEDLE, TINY, withFolder } from "./evaluated.ts";
import { TIMED_TOKENS } from "../../bench/engine/measure.ts";
import { chunkkv } from "./run.ts";

Deno.test("reuse tells how alike layers choose, and what sharing does", () =>
  withFolder(async (folder) => {
    const { rows, summary, stdout } = await evaluated([
      "reuse",
      "--lengths",
      "120",
      "--limit",
      "1",
      "--methods",
      "streaming_llm,snapkv,chunkkv",
      "--keeps",
      "0.3",
      "--reuse",
      "1,3",
      "--chunk-size",
      "10,3",
      ...TINY,
    ], folder);
    assertEquals(rows.map(methodLabel), [
      "full",
      "streaming_llm",
      "snapkv",
      "chunkkv c=10",
      "chunkkv c=3",
      "chunkkv N=3 c=10",
      "chunkkv N=3 c=3",
    ]);
    const [, streaming, snapkv, chunkkv1, , chunkkv3] = rows;
    // With one example a mean is its row's, and chunk sizes are not mixed.
    for (const [i, line] of (summary as unknown as { similarity_by_layer: number[] }[]).entries()) {
      assertEquals(line.similarity_by_layer, rows[i]!.similarity ?? []);
    }
    assertEquals(streaming!.similarity, Array(29).fill(1));
    const isBetween = (value: number) => value >= 0 && value < 1;
    assert(snapkv!.similarity!.length === 29 && snapkv!.similarity!.some(isBetween));
    assert(chunkkv1!.similarity!.some(isBetween));
    // Layers 1 and 2 use layer 0's choice, layer 3 chooses again.
    assertEquals(chunkkv3!.similarity!.slice(0, 2), [1, 1]);
    assert(chunkkv3!.similarity!.filter((value) => value === 1).length >= 20);
    assertStringIncludes(stdout, "chunkkv N=3");
  }));

Deno.test("reuse tells it of what a query chose, too", () =>
  withFolder(async (folder) => {
    const { rows, stdout } = await evaluated([
      ...["reuse", "--lengths", "120", "--limit", "1", "--methods", "chunkkv", "--keeps", "0.4"],
      ...["--reuse", "1", "--question", "after", "--query-text", "What matters here?", ...TINY],
    ], folder);
    const { similarity } = rows[1]!;
    assertEquals(similarity!.length, 29);
    assert(similarity!.some((value) => value > 0 && value < 1), `${similarity}`);
    assertStringIncludes(stdout, "similarity of neighbouring layers");
  }));

Deno.test("speed holds each method against a context that was never longer", () =>
  withFolder(async (folder) => {
    const { rows, stdout } = await evaluated([
      "speed",
      "--prompt-tokens",
      "100",
      "--methods",
      "chunkkv,h2o",
      "--keeps",
      "0.3",
      "--threads",
      "1",
    ], folder);
    const speeds = rows as unknown as Record<string, number>[];
    assertEquals(rows.map(({ method }) => method), ["full", "chunkkv", "h2o"]);
    assertEquals(rows.map(({ kept_tokens }) => kept_tokens), [100, 30, 30]);
    for (const row of speeds) assert(row["prefill_s"]! > 0 && row["decode_tps"]! > 0);
    assert(speeds[1]!["native_tps"]! > 0 && speeds[0]!["native_tps"] === null);
    assert(Math.abs(speeds[1]!["kv_mib"]! / speeds[0]!["kv_mib"]! - 0.3) < 1e-9);
    assertStringIncludes(stdout, "native tok/s");
  }));

const BAD_USAGE: [string, string[], string][] = [
  ["an unknown method", ["needle", "--methods", "nonsense"], "Expected --methods out of full, "],
  ["a method named twice", ["needle", "--methods", "h2o,h2o"], "each value once"],
  ["a keep of nothing", ["gsm8k", "--keeps", "0"], "--keeps to be above 0 and at most 1"],
  ["a keep of more than all", ["gsm8k", "--keeps", "0.1,1.5"], 'at most 1 but found "1.5"'],
  ["a depth below the text", ["needle", "--depths", "1.2"], "--depths to be from 0 to 1"],
  ["an unknown order", ["needle", "--question", "before"], "--question to be in or after"],
  ["a query without its order", [...NEEDLE, "--query-text", "Why?"], "only with --question after"],
  ["a folder that is not there", ["longbench", "--data", "/nowhere"], "/nowhere"],
  ["an unknown task", ["longbench", "--tasks", "nonsense"], "nonsense"],
  ["an unknown benchmark", ["reuse", "--benchmark", "mmlu"], "needle, longbench, gsm8k"],
  [
    "lengths of what has none",
    ["reuse", "--benchmark", "gsm8k", "--lengths", "1000"],
    "--lengths only with needle but found gsm8k",
  ],
  [
    "a prompt longer than the model's context",
    ["speed", "--prompt-tokens", "9000", "--quick"],
    `at most ${8192 - TIMED_TOKENS}`,
  ],
  ["no example that fits", [...NEEDLE, "--context-size", "100"], "an example that fits in 100"],
  [
    "a journal in no folder",
    [...NEEDLE, "--limit", "1", "--resume", "/nowhere/j"],
    "--resume to name a writable file",
  ],
];

for (const [what, args, words] of BAD_USAGE) {
  Deno.test(`${what} is bad usage: exit code 2 and words`, async () => {
    const { code, stderr } = await chunkkv(args);
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, words);
  });
}
