import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { methodLabel } from "../../bench/evaluation/cases.ts";
import type { ExampleRow } from "../../bench/evaluation/rows.ts";
import { repoRoot } from "../../tools/paths.ts";
import { evaluated, NEEDLE, TINY, withFolder } from "./evaluated.ts";
import { chunkkv } from "./run.ts";

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

Deno.test("answers are judged as they were written, with the spaces that code is scored with", () =>
  withFolder(async (folder) => {
    const { rows } = await evaluated(
      ["longbench", "--tasks", "trec", "--methods", "snapkv", "--keeps", "0.1", ...TINY],
      folder,
    );
    const [full, snapkv] = rows;
    assertEquals([full!.task, full!.method, snapkv!.method], ["trec", "full", "snapkv"]);
    for (const { answer } of rows) assertEquals(answer?.[0], " ", JSON.stringify(answer));
    // Each way to generate: the one that begins with the full cache's words, and in a batch.
    assert(rows.some(({ answer }, i) => answer !== rows[i - i % 2]!.answer), "one is in a batch");
  }));

function pick({ score, nll, answer }: ExampleRow) {
  return { score, nll, answer };
}

Deno.test("workers share the examples, and rows are those of one worker", () =>
  withFolder(async (folder) => {
    const args = [...NEEDLE, "--limit", "5", "--methods", "chunkkv", "--keeps", "0.3"];
    const one = await evaluated(args, folder);
    const journal = `${folder}/rows.jsonl`;
    const three = [...args, "--workers", "3", "--resume", journal];
    const timeless = (rows: ExampleRow[]) => rows.map((row) => ({ ...row, compress_ms: 0 }));
    const several = await evaluated(three, folder);
    assertEquals(timeless(several.rows), timeless(one.rows));
    assertEquals(several.rows.length, 10);
    const { rows } = await evaluated(three, folder);
    assertEquals(rows, several.rows, "the journal has all rows");
  }));

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

Deno.test("chunk sizes, windows and spreads are compared where a method has them; without answers", () =>
  withFolder(async (folder) => {
    const run = (...more: string[]) =>
      evaluated([
        ...NEEDLE,
        ...["--limit", "1", "--methods", "streaming_llm,snapkv,chunkkv", "--keeps", "0.3"],
        ...["--no-answers", ...more],
      ], folder);
    const { rows, summary, stdout } = await run(
      ...["--chunk-size", "5,20", "--window", "8,16", "--spread", "1,4"],
    );
    const names = [
      "full",
      "streaming_llm",
      "snapkv w=8",
      "snapkv w=16",
      ...["c=5", "c=20"].flatMap((c) =>
        ["w=8", "w=16"].flatMap((w) => ["s=1", "s=4"].map((s) => `chunkkv ${c} ${w} ${s}`))
      ),
    ];
    assertEquals(rows.map(methodLabel), names);
    assertEquals(summary.filter(({ length }) => length === null).map(methodLabel), names);
    for (const name of names) assertStringIncludes(stdout, name);
    for (const { window, window_size = window } of rows) assertEquals(window, window_size);
    for (const row of rows) assertEquals([row.score, row.answer], [null, undefined]);
    for (const { score, score_ci, vs_full } of summary) {
      assertEquals([score, score_ci, vs_full?.score ?? null], [null, null, null]);
    }
    const alone = await run("--chunk-size", "20", "--window", "16", "--spread", "4");
    assertEquals(alone.rows.map(methodLabel), ["full", "streaming_llm", "snapkv", "chunkkv"]);
    const measured = ({ kl, nll, kept_tokens }: ExampleRow) => ({ kl, nll, kept_tokens });
    assertEquals(
      alone.rows.map(measured),
      [rows[0]!, rows[1]!, rows[3]!, rows.at(-1)!].map(measured),
    );
    const [small, spread] = [rows[4]!, rows[5]!];
    assert(small.kl !== spread.kl && small.kl !== rows[8]!.kl, "other settings choose others");
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

Deno.test("sliding windows of caches that answer together have room for all their cells", () =>
  withFolder(async (folder) => {
    const model = ["--model", "gemma3-270m"];
    const args = ["needle", "--lengths", "600", "--depths", "0.5", ...TINY, ...model];
    const { rows } = await evaluated([
      ...args,
      "--limit",
      "1",
      "--methods",
      "snapkv,chunkkv,streaming_llm",
      "--keeps",
      "0.1,0.05",
    ], folder);
    assertEquals(rows.map(({ kept_tokens, answer }) => [kept_tokens < 100, typeof answer]), [
      [false, "string"],
      ...Array(6).fill([true, "string"]),
    ]);
  }));
