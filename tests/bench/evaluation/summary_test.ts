import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import type { ExampleRow } from "../../../bench/evaluation/rows.ts";
import { layerSimilarity } from "../../../bench/evaluation/similarity.ts";
import { EVERYTHING, summarize } from "../../../bench/evaluation/summary.ts";
import { methodTable } from "../../../bench/evaluation/tables.ts";

function row(task: string, id: string, method: string, values: Partial<ExampleRow>): ExampleRow {
  return {
    id,
    task,
    method,
    keep: method === "full" ? 1 : 0.1,
    reuse: 1,
    score: 0,
    nll: null,
    kl: 0,
    prompt_tokens: 100,
    kept_tokens: 10,
    window: 5,
    compress_ms: 2,
    ...values,
  };
}

Deno.test("means are over tasks, differences over the same examples", () => {
  const rows = [
    row("a", "1", "full", { score: 1, nll: 1 }),
    row("a", "1", "snapkv", { score: 0.5, nll: 3, kl: 4 }),
    row("a", "1", "chunkkv", { score: 1, nll: 2, kl: 1 }),
    row("b", "1", "full", { score: 1 }),
    row("b", "1", "snapkv", { score: 0, kl: 2 }),
    row("b", "1", "chunkkv", { score: 0, kl: 2 }),
    row("b", "2", "full", { score: 0 }),
    row("b", "2", "snapkv", { score: 0, kl: 2 }),
    row("b", "2", "chunkkv", { score: 1, kl: 0 }),
  ];
  const summary = summarize(rows, ({ task }) => [EVERYTHING, { ...EVERYTHING, task }]);
  assertEquals(
    summary.map(({ task, method, n }) => [task, method, n]),
    [
      [null, "full", 3],
      [null, "snapkv", 3],
      [null, "chunkkv", 3],
      ["a", "full", 1],
      ["a", "snapkv", 1],
      ["a", "chunkkv", 1],
      ["b", "full", 2],
      ["b", "snapkv", 2],
      ["b", "chunkkv", 2],
    ],
  );
  const [full, snapkv, chunkkv] = summary;
  assertEquals([full!.score, snapkv!.score, chunkkv!.score], [0.75, 0.25, 0.75]);
  assertEquals(full!.vs_full, null);
  assertEquals(chunkkv!.vs_chunkkv, null);
  assertEquals(snapkv!.vs_full!.score![0], -0.5);
  assertEquals(snapkv!.vs_chunkkv!.score![0], -0.5);
  assertEquals(snapkv!.vs_chunkkv!.kl[0], 2);
  // Only task a has a reference answer.
  assertEquals([snapkv!.nll, snapkv!.vs_chunkkv!.nll![0]], [3, 1]);
  assertEquals(summary[7]!.nll, null);
  assertEquals(summary[7]!.vs_full!.nll, null);
  const [low, high] = summary[8]!.score_ci!;
  assertEquals([low, high], [0, 1]);
  // One example tells nothing of others, alone or in a mean over tasks.
  for (const line of [chunkkv!, summary[5]!]) {
    assertEquals([line.score_ci, line.kl_ci], [null, null]);
    assertEquals(line.vs_full!.score!.slice(1), [null, null]);
  }
  assertEquals(summary[7]!.vs_chunkkv!.kl.slice(1), [0, 2]);
});

Deno.test("what only ran with shared layers is compared, too, but rather with those without", () => {
  const shared = row("a", "1", "chunkkv", { reuse: 2, kl: 1 });
  const others = [row("a", "1", "full", {}), row("a", "1", "snapkv", { kl: 3 })];
  const less = (rows: ExampleRow[]) =>
    summarize(rows, () => [EVERYTHING]).find(({ method }) => method === "snapkv")!.vs_chunkkv!
      .kl[0];
  assertEquals(less([...others, shared]), 2);
  assertEquals(less([...others, shared, row("a", "1", "chunkkv", { kl: 0.5 })]), 2.5);
});

Deno.test("tables have no interval where there is none", () => {
  const rows = ["full", "chunkkv"].flatMap((method) =>
    ["1", "2"].map((id) => row("a", id, method, { score: 0.5, kl: 0 }))
  );
  const table = (rows: ExampleRow[]) => methodTable(summarize(rows, () => [EVERYTHING]), "score");
  assertStringIncludes(table(rows), "50.0 [50.0, 50.0]");
  const alone = table(rows.filter(({ id }) => id === "1"));
  assertStringIncludes(alone, "0.000");
  assert(!/\[|null|NaN/.test(alone), alone);
});

Deno.test("layers are as alike as what they chose before the window", () => {
  const layer = (...indices: number[][]) => ({
    layer: 0,
    indices: indices.map((set) => Int32Array.from(set)),
  });
  // 90 to 92 are the window.
  const shared = [layer([1, 2, 3, 90, 91, 92]), layer([2, 3, 4, 90, 91, 92]), layer([90, 91, 92])];
  assertEquals(layerSimilarity(shared, 90), [0.5, 0]);
  const perHead = [layer([1, 2, 90], [5, 6, 90]), layer([1, 2, 90], [6, 7, 90])];
  assertAlmostEquals(layerSimilarity(perHead, 90)[0]!, (1 + 1 / 3) / 2);
  assertEquals(layerSimilarity([layer([90]), layer([90])], 90), [1]);
});
