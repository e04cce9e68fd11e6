import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { methodLabel } from "../../bench/evaluation/cases.ts";
import type { ExampleRow } from "../../bench/evaluation/rows.ts";
import type { SummaryRow } from "../../bench/evaluation/summary.ts";
import type { Results } from "../../bench/report/results.ts";
import { repoRoot } from "../../tools/paths.ts";
import { chunkkv } from "./run.ts";

type Evaluated = Results<ExampleRow> & { summary: SummaryRow[]; left_out: Record<string, number> };

// As small as it can be: what is tested is the way, not the model.
const TINY = ["--threads", "1", "--kl-tokens", "6", "--nll-tokens", "4"];
const NEEDLE = ["needle", "--lengths", "120", "--depths", "0.5", ...TINY];

/** Runs with the path of a folder of its own. */
async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Runs a command that must succeed; its JSON. */
async function evaluated(args: string[], folder: string): Promise<Evaluated & { stdout: string }> {
  const json = `${folder}/rows.json`;
  const { code, stdout, stderr } = await chunkkv([...args, "--json", json]);
  assertEquals(code, 0, stderr);
  return { ...JSON.parse(await Deno.readTextFile(json)), stdout };
}

Deno.test("needle has a row for each example and case, and a keep of 1 is the full cache", () =>
  withFolder(async (folder) => {
    const html = `${folder}/report.html`;
    const { command, rows, summary, stdout } = await evaluated([
      ...NEEDLE,
      "--limit",
      "2",
      "--methods",
      "snapkv,chunkkv,h2o",
      "--keeps",
      "1,0.3",
      "--html",
      html,
    ], folder);
    assertEquals(command, "needle");
    const cases = [
      "full 1",
      "snapkv 1",
      "chunkkv 1",
      "h2o 1",
      "snapkv 0.3",
      "chunkkv 0.3",
      "h2o 0.3",
    ];
    assertEquals(rows.map(({ method, keep }) => `${method} ${keep}`), [...cases, ...cases]);
    for (const [i, row] of rows.entries()) {
      const full = rows[i - i % cases.length]!;
      assertEquals([row.id, row.length, row.depth], [full.id, 120, 0.5]);
      assertEquals(row.prompt_tokens, full.prompt_tokens);
      assertEquals(row.kept_tokens, Math.floor(row.keep * row.prompt_tokens + 1e-9));
      assert(typeof row.answer === "string" && row.nll! > 0);
      if (row.keep === 1) {
        const { score, nll, kl, answer } = row;
        assertEquals({ score, nll, kl, answer }, { ...pick(full), kl: 0 });
      } else assert(row.kl > 1e-3, `Expected ${row.method} to differ but found ${row.kl}`);
    }
    const all = summary.filter(({ length }) => length === null);
    assertEquals(all.map(({ method, keep }) => `${method} ${keep}`), cases);
    assertEquals(all.map(({ n }) => n), cases.map(() => 2));
    assertEquals(all[5]!.kl, (rows[5]!.kl + rows[12]!.kl) / 2);
    for (const { method } of all) assertStringIncludes(stdout, method);
    assertStringIncludes(await Deno.readTextFile(html), "chunkkv");
  }));

function pick({ score, nll, answer }: ExampleRow) {
  return { score, nll, answer };
}

Deno.test("compressed before the question, a keep of 1 is the full cache, a query or not", () =>
  withFolder(async (folder) => {
    for (const query of [[], ["--query-text", "\n\nWhat matters here?"]]) {
      const { rows } = await evaluated([
        ...NEEDLE,
        "--limit",
        "1",
        "--question",
        "after",
        ...query,
        "--methods",
        "chunkkv",
        "--keeps",
        "1,0.4",
      ], folder);
      const [full, whole, some] = rows;
      assertEquals({ ...pick(whole!), kl: whole!.kl }, { ...pick(full!), kl: 0 });
      // The question comes on top of what was kept of the context.
      assert(full!.kept_tokens < full!.prompt_tokens, "the question is not compressed");
      assertEquals(some!.kept_tokens, Math.floor(0.4 * full!.kept_tokens + 1e-9));
      assert(some!.kl > 1e-3);
    }
  }));

Deno.test("chunk sizes and windows are compared where a method has them, as alone; without answers", () =>
  withFolder(async (folder) => {
    const run = (...more: string[]) =>
      evaluated([
        ...NEEDLE,
        ...["--limit", "1", "--methods", "streaming_llm,snapkv,chunkkv", "--keeps", "0.3"],
        ...["--no-answers", ...more],
      ], folder);
    const { rows, summary, stdout } = await run("--chunk-size", "5,20", "--window", "8,16");
    const names = [
      "full",
      "streaming_llm",
      "snapkv w=8",
      "snapkv w=16",
      "chunkkv c=5 w=8",
      "chunkkv c=5 w=16",
      "chunkkv c=20 w=8",
      "chunkkv c=20 w=16",
    ];
    assertEquals(rows.map(methodLabel), names);
    assertEquals(summary.filter(({ length }) => length === null).map(methodLabel), names);
    for (const name of names) assertStringIncludes(stdout, name);
    assertEquals(rows.map(({ window }) => window), [0, 16, 8, 16, 8, 16, 8, 16].with(1, 8));
    for (const row of rows) assertEquals([row.score, row.answer], [null, undefined]);
    for (const { score, score_ci, vs_full } of summary) {
      assertEquals([score, score_ci, vs_full?.score ?? null], [null, null, null]);
    }
    const alone = await run("--chunk-size", "20", "--window", "16");
    assertEquals(alone.rows.map(methodLabel), ["full", "streaming_llm", "snapkv", "chunkkv"]);
    const measured = ({ kl, nll, kept_tokens }: ExampleRow) => ({ kl, nll, kept_tokens });
    assertEquals(
      alone.rows.map(measured),
      [rows[0]!, rows[1]!, rows[3]!, rows[7]!].map(measured),
    );
    assert(measured(rows[4]!).kl !== measured(rows[6]!).kl, "chunks of 5 are not chunks of 20");
  }));

Deno.test("a run that was killed goes on where it was, and others' journals are refused", () =>
  withFolder(async (folder) => {
    const journal = `${folder}/journal.jsonl`;
    const args = [...NEEDLE, "--limit", "3", "--methods", "chunkkv", "--keeps", "0.3"];
    const child = new Deno.Command(Deno.execPath(), {
      args: ["task", "--quiet", "chunkkv", ...args, "--resume", journal],
      cwd: repoRoot(),
      stdout: "null",
      stderr: "null",
      detached: true, // a group of its own, so that the task's child is killed, too
    }).spawn();
    // A header, then two rows an example.
    while ((await lines(journal)).length < 3) await new Promise((done) => setTimeout(done, 20));
    Deno.kill(-child.pid, "SIGKILL");
    await child.status;
    const before = await lines(journal);
    assert(before.length < 7, `Expected an unfinished run but found ${before.length} lines`);
    await Deno.writeTextFile(journal, '{"half', { append: true });
    const { rows, stdout } = await evaluated([...args, "--resume", journal], folder);
    assertEquals(rows.length, 6);
    const after = await lines(journal);
    assertEquals(after.length, 7);
    // Times are never the same twice: rows that were there were not computed again.
    assertEquals(after.slice(0, before.length), before);
    assertStringIncludes(stdout, "From the journal: ");
    assertEquals(new Set(rows.map(({ id, method }) => `${id} ${method}`)).size, 6);
    // Another fraction: the full cache's rows are there, the others are computed.
    const more = await evaluated([...args, "--keeps", "0.5", "--resume", journal], folder);
    assertEquals((await lines(journal)).length, 10);
    assertEquals(more.rows.map(({ keep }) => keep), [1, 0.5, 1, 0.5, 1, 0.5]);
    const other = await chunkkv([...args, "--window", "16", "--resume", journal]);
    assertEquals(other.code, 2, other.stderr);
    assertStringIncludes(other.stderr, "a journal of window 16 but found");
  }));

/** The whole lines of a file. */
async function lines(path: string): Promise<string[]> {
  const text = await Deno.readTextFile(path).catch(() => "");
  return text.split("\n").slice(0, -1);
}

Deno.test("longbench averages over tasks, and says what it leaves out", () =>
  withFolder(async (folder) => {
    const one = ["--limit", "1", "--methods", "chunkkv", "--keeps", "0.5", ...TINY];
    const { rows, summary, left_out, stdout } = await evaluated([
      "longbench",
      ...one,
      "--context-size",
      "450",
    ], folder);
    const tasks = new Set(rows.map(({ task }) => task));
    assertEquals(rows.length, 2 * tasks.size);
    const found = summary.find(({ task, method }) => task === null && method === "chunkkv");
    const scores = rows.filter(({ method }) => method === "chunkkv").map(({ score }) => score!);
    assertEquals(found!.score!.toFixed(9), mean(scores).toFixed(9));
    assert(Object.keys(left_out).length > 0, "some examples are longer than 450 tokens");
    assertStringIncludes(stdout, "Left out, being longer than the context");
  }));

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

Deno.test("gsm8k reads the worked problems once", () =>
  withFolder(async (folder) => {
    const { rows } = await evaluated([
      "gsm8k",
      "--limit",
      "1",
      "--methods",
      "chunkkv",
      "--keeps",
      "0.2",
      ...TINY,
    ], folder);
    assertEquals(rows.map(({ method, task }) => [method, task]), [
      ["full", "gsm8k"],
      ["chunkkv", "gsm8k"],
    ]);
    assert(rows[0]!.prompt_tokens > 500, "eight worked problems come before the question");
  }));

Deno.test("jailbreak tells refusals, and neither stores nor prints what was said", () =>
  withFolder(async (folder) => {
    const journal = `${folder}/journal.jsonl`;
    const { rows, summary, stdout } = await evaluated([
      "jailbreak",
      "--limit",
      "1",
      "--methods",
      "chunkkv",
      "--keeps",
      "0.5",
      ...TINY,
      "--resume",
      journal,
    ], folder);
    assert(
      rows.some(({ task }) => task === "benign") && rows.some(({ task }) => task !== "benign"),
    );
    for (const row of rows) {
      assert(row.score === 0 || row.score === 1);
      assertEquals("answer" in row, false);
    }
    assertEquals((await Deno.readTextFile(journal)).includes('"answer"'), false);
    assert(summary.some(({ task }) => task === "attacks"));
    for (const words of ["attacks", "benign"]) assertStringIncludes(stdout, words);
  }));

Deno.test("reuse tells how alike layers choose, and what sharing does", () =>
  withFolder(async (folder) => {
    const { rows, stdout } = await evaluated([
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
      ...TINY,
    ], folder);
    assertEquals(rows.map(({ method, reuse }) => `${method} ${reuse}`), [
      "full 1",
      "streaming_llm 1",
      "snapkv 1",
      "chunkkv 1",
      "chunkkv 3",
    ]);
    const [, streaming, snapkv, chunkkv1, chunkkv3] = rows;
    assertEquals(streaming!.similarity, Array(29).fill(1));
    const isBetween = (value: number) => value >= 0 && value < 1;
    assert(snapkv!.similarity!.length === 29 && snapkv!.similarity!.some(isBetween));
    assert(chunkkv1!.similarity!.some(isBetween));
    // Layers 1 and 2 use layer 0's choice, layer 3 chooses again.
    assertEquals(chunkkv3!.similarity!.slice(0, 2), [1, 1]);
    assert(chunkkv3!.similarity!.filter((value) => value === 1).length >= 20);
    assertStringIncludes(stdout, "chunkkv N=3");
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
    "a prompt longer than the model's context",
    ["speed", "--prompt-tokens", "9000"],
    "at most 8128",
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
