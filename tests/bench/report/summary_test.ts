import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { ExampleRow } from "../../../bench/evaluation/rows.ts";
import { EVERYTHING, summarize as summarizeExamples } from "../../../bench/evaluation/summary.ts";
import { seededRandom } from "../../../bench/random.ts";
import { commandLine } from "../../../bench/report/command_line.ts";
import { renderHtml } from "../../../bench/report/html.ts";
import { results } from "../../../bench/report/results.ts";
import {
  type Estimate,
  type EvaluationRow,
  isEvaluation,
  summarize,
} from "../../../bench/report/summary.ts";

/** Rows of a method with these scores, the first of example 0. */
function scored(method: string, keep: number, task: string, scores: number[]): EvaluationRow[] {
  return scores.map((score, i) => ({ method, keep, task, id: `${i}`, score, kl: score / 10 }));
}

Deno.test("summarize() gives each task, method and fraction its mean and interval", () => {
  const rows = [
    ...scored("full", 1, "a", [1, 1, 1, 0]),
    ...scored("chunkkv", 0.1, "a", [1, 0, 1, 0]),
    ...scored("chunkkv", 0.2, "a", [1, 1, 1, 0]),
  ];
  const [full, tenth, fifth] = summarize(rows);
  assertEquals([full!.method, full!.n, full!.score!.mean], ["full", 4, 0.75]);
  assertEquals(full!.difference, undefined);
  assertEquals([tenth!.keep, tenth!.score!.mean], [0.1, 0.5]);
  assert(tenth!.score!.low! < 0.5 && tenth!.score!.high! > 0.5);
  assertAlmostEquals(tenth!.kl!.mean, 0.05, 1e-12);
  assertEquals(tenth!.difference!.mean, -0.25);
  assertEquals(fifth!.difference, { mean: 0, low: 0, high: 0, n: 4, isSignificant: false });
});

Deno.test("summarize() pairs by example, not by place", () => {
  const full = scored("full", 1, "a", [0, 1, 0, 1]);
  const same = scored("chunkkv", 0.1, "a", [0, 1, 0, 1]).toReversed();
  assertEquals(summarize([...full, ...same])[1]!.difference?.low, 0);
  const unpaired = same.map((row) => ({ ...row, id: "other" }));
  assertEquals(summarize([...full, ...unpaired])[1]!.difference, undefined);
});

Deno.test("summarize() weighs tasks alike in their mean", () => {
  const rows = [
    ...scored("full", 1, "a", [1, 1]),
    ...scored("full", 1, "b", [1, 1, 1, 1, 1, 1]),
    ...scored("chunkkv", 0.1, "a", [0, 0]),
    ...scored("chunkkv", 0.1, "b", [1, 1, 1, 1, 1, 1]),
  ];
  const lines = summarize(rows);
  assertEquals(lines.map(({ task }) => task), [undefined, undefined, "a", "a", "b", "b"]);
  assertEquals([lines[1]!.score!.mean, lines[1]!.difference!.mean], [0.5, -0.5]);
  assert(lines[1]!.difference!.isSignificant);
});

Deno.test("summarize() takes means with intervals where there are no examples", () => {
  const mean = { method: "h2o", keep: 0.1, task: "a", score: 0.4, n: 50, ci: [0.3, 0.5] as const };
  assertEquals(summarize([mean])[0]!.score, { mean: 0.4, low: 0.3, high: 0.5 });
  // Beside examples they are left out: nothing counts twice.
  const [line] = summarize([mean, ...scored("h2o", 0.1, "a", [1, 1, 1])]);
  assertEquals([line!.n, line!.score!.mean], [3, 1]);
});

Deno.test("summarize() keeps methods that share layers apart, and misses nothing as 0", () => {
  const row = { method: "chunkkv", keep: 0.1, task: "a" };
  const lines = summarize([
    { ...row, exact: true, nll: 1 },
    { ...row, exact: false, reuse: 2, nll: null },
  ]);
  assertEquals(lines.map(({ method }) => method), ["chunkkv", "chunkkv N=2"]);
  assertEquals(lines.map(({ score }) => score?.mean), [1, 0]);
  assertEquals(lines.map(({ nll }) => nll?.mean), [1, undefined]);
});

Deno.test("the page's figures are those of the table and the JSON", () => {
  const random = seededRandom(5, "summaries");
  const rows: ExampleRow[] = ["a", "b", "c"].flatMap((task, t) =>
    Array.from({ length: 3 + t }, (_, i) => `${i}`).flatMap((id) =>
      [["full", 1], ["chunkkv", 0.1], ["snapkv", 0.1]].map(([method, keep]) => ({
        ...{ task, id, method: method as string, keep: keep as number, reuse: 1 },
        ...{
          score: random(),
          nll: t === 1 ? null : random(),
          kl: method === "full" ? 0 : random(),
        },
        ...{ prompt_tokens: 100, kept_tokens: 10, window: 5, compress_ms: 1 },
      }))
    )
  );
  const pages = summarize(rows);
  const tables = summarizeExamples(
    rows,
    ({ task }) => [EVERYTHING, { ...EVERYTHING, task }],
  );
  const ends = (estimate: Estimate | undefined) =>
    estimate ? [estimate.mean, estimate.low ?? null, estimate.high ?? null] : null;
  const ofPages = pages.map((line) => ({
    ...{ task: line.task ?? null, method: line.method, keep: line.keep, n: line.n },
    ...{ score: ends(line.score), kl: ends(line.kl), nll: line.nll?.mean ?? null },
    less_full: ends(line.difference),
  }));
  // Where a task has no reference answers the page tells no mean over all tasks.
  const ofTables = tables.map((row) => ({
    ...{ task: row.task, method: row.method, keep: row.keep, n: row.n },
    ...{ score: [row.score!, ...row.score_ci!], kl: [row.kl, ...row.kl_ci!] },
    nll: row.task === null ? null : row.nll,
    less_full: row.vs_full?.score?.slice() ?? null,
  }));
  assertEquals(ofPages.length, 12);
  for (const line of ofPages) {
    const { task, method } = line;
    assertEquals(line, ofTables.find((row) => row.task === task && row.method === method));
  }
});

Deno.test("controls are in no mean, and one example of a task leaves it without an interval", () => {
  const task = (task: string, scores: number[]) =>
    scores.map((score, i) => ({ method: "h2o", keep: 0.1, task, id: `${i}`, score }));
  const rows = [...task("benign", [1, 1]), ...task("logic", [0, 1]), ...task("persuade", [0, 0])];
  const [mean, ...byTask] = summarize(rows);
  assertEquals([mean!.task, mean!.n, mean!.score!.mean], [undefined, 4, 0.25]);
  assert(mean!.score!.low !== undefined);
  assertEquals(byTask.map(({ task }) => task), ["benign", "logic", "persuade"]);
  assertEquals(summarize(task("benign", [1, 1])).map(({ task }) => task), ["benign"]);
  const [alone] = summarize([...task("a", [0]), ...task("b", [1, 0])]);
  assertEquals(alone!.score, { mean: 0.25 });
});

Deno.test("isEvaluation() tells evaluations from other results", () => {
  assert(isEvaluation([{ method: "h2o", keep: 0.1, kl: null }]));
  assert(!isEvaluation([{ method: "h2o", keep: 0.1, decode_tps: 3 }]));
  assert(!isEvaluation([]) && !isEvaluation([null]) && !isEvaluation([{ kl: 1 }]));
});

Deno.test("commandLine() can be pasted into a shell", () => {
  const args = {
    maxTokens: 64,
    keeps: [0.1, 0.3],
    data: "it's here",
    compressBefore: true,
    json: undefined,
    html: null,
    verbose: false,
    answers: true,
  };
  assertEquals(
    commandLine(results("gsm8k", null, args, [])),
    `deno task chunkkv gsm8k --max-tokens 64 --keeps 0.1,0.3 --data 'it'\\''s here' --compress-before`,
  );
  assertEquals(
    commandLine(results("gsm8k", null, { answers: false }, [])),
    "deno task chunkkv gsm8k --no-answers",
  );
});

Deno.test("renderHtml() keeps the speeds of a method's settings apart", async () => {
  const rows = [8, 16].map((window_size) => ({
    ...{ method: "chunkkv", keep: 0.1, reuse: 1, window_size, prompt_tokens: 64 },
    decode_tps: window_size,
  }));
  const page = await renderHtml(results("speed", "model", {}, rows));
  for (const name of ["chunkkv w=8 10% of 64 8.00", "chunkkv w=16 10% of 64 16.0"]) {
    assert(page.includes(name), name);
  }
});

Deno.test("renderHtml() writes a page without rows, too, and asks for nothing", async () => {
  const page = await renderHtml(results("needle", "<model>", {}, []));
  assert(page.startsWith("<!DOCTYPE html>") && page.includes("&lt;model&gt;"));
  assert(page.includes("default-src &#39;none&#39;") && !/(?:src|href)="?https?:/.test(page));
});
