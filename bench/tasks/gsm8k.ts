/**
 * GSM8K (arXiv 2110.14168): grade school mathematics, eight worked examples before each question.
 *
 * @module
 */
import { join } from "node:path";
import * as v from "valibot";
import { UsageError } from "../usage.ts";
import { chosenTasks, draw } from "./draw.ts";
import type { Example, LoadOptions } from "./example.ts";
import { listFiles, readRowsAs, type Row, sample } from "./rows.ts";

const SHOTS = 8;
const MAX_TOKENS = 256;
const ROW = v.looseObject({
  question: v.string(),
  answer: v.pipe(
    v.string(),
    v.check((text) => /####\s*-?[\d,.]+\s*$/.test(text), 'a solution that ends in "#### 42"'),
  ),
});
type Problem = v.InferOutput<typeof ROW>;

/**
 * The test problems, each after eight worked ones.
 *
 * @param dir A folder with `test.jsonl` (or another `.jsonl` that is not `train*`); the worked ones
 * are the first eight of `train_8shot.jsonl` or `train.jsonl`, or else our own; undefined: the
 * sample.
 */
export async function load(dir: string | undefined, options: LoadOptions): Promise<Example[]> {
  const folder = dir ?? sample("gsm8k");
  const files = await listFiles(folder, [".jsonl"]);
  const tests = files.filter((name) => !name.startsWith("train"));
  const test = tests.find((name) => name === "test.jsonl") ?? tests[0];
  if (test === undefined) {
    throw new UsageError(
      `Expected --data to name a folder with test.jsonl but found ${files.join(", ") || "none"}` +
        ` in "${folder}"`,
    );
  }
  chosenTasks(["gsm8k"], options.tasks);
  const train = ["train_8shot.jsonl", "train.jsonl"].find((name) => files.includes(name));
  const shots = await readRowsAs(
    train ? join(folder, train) : sample("gsm8k", "train_8shot.jsonl"),
    ROW,
  );
  if (shots.length < SHOTS) {
    throw new UsageError(
      `${join(folder, train ?? "")}: Expected at least ${SHOTS} rows but found ${shots.length}`,
    );
  }
  const context = shots.slice(0, SHOTS).map(({ value }) => worked(value)).join("\n\n") + "\n\n";
  const rows = await readRowsAs(join(folder, test), ROW);
  return draw(rows.map((row, i) => toExample(row, i, context)), options);
}

function toExample({ value }: Row<Problem>, index: number, context: string): Example {
  return {
    id: String(index),
    task: "gsm8k",
    context,
    question: `Q: ${value.question.trim()}\nA:`,
    chat: false,
    answers: [final(value)],
    reference: ` ${solution(value)}`,
    maxTokens: MAX_TOKENS,
    stop: ["\nQ:", "\n\n"],
    metric: "gsm8k",
  };
}

function worked(problem: Problem): string {
  return `Q: ${problem.question.trim()}\nA: ${solution(problem)}`;
}

/** The steps without GSM8K's calculator marks, on one line, and the answer in words. */
function solution(problem: Problem): string {
  const steps = problem.answer.split("####")[0]!.replaceAll(/<<[^>]*>>/g, "");
  return `${steps.trim().replaceAll(/\s*\n\s*/g, " ")} The answer is ${final(problem)}.`;
}

function final(problem: Problem): string {
  return problem.answer.split("####").at(-1)!.trim();
}
