import { assertAlmostEquals, assertEquals } from "@std/assert";
import type { ExampleRow } from "../../../bench/evaluation/rows.ts";
import { layerSimilarity } from "../../../bench/evaluation/similarity.ts";
import { EVERYTHING, summarize } from "../../../bench/evaluation/summary.ts";

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
