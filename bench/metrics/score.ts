/**
 * The score of a prediction, by the example's metric.
 *
 * @module
 */
import type { Example, Metric } from "../tasks/example.ts";
import { baseOf } from "../tasks/longbench.ts";
import { gsm8k, needle } from "./exact.ts";
import { classification, codeSimilarity, count, retrieval, retrievalChinese } from "./longbench.ts";
import { qaF1, qaF1Chinese } from "./qa.ts";
import { refusalScore } from "./refusal.ts";
import { rougeL, rougeLChinese } from "./rouge.ts";

type Score = (prediction: string, answer: string, example: Example) => number;

const SCORES: Record<Metric, Score> = {
  qa_f1: qaF1,
  qa_f1_zh: qaF1Chinese,
  rouge_l: rougeL,
  rouge_l_zh: rougeLChinese,
  classification: (prediction, answer, example) =>
    classification(prediction, answer, example.allClasses ?? []),
  retrieval,
  retrieval_zh: retrievalChinese,
  count,
  code_sim: codeSimilarity,
  gsm8k,
  needle,
  refusal: refusalScore,
};

// Few-shot tasks of LongBench: the model goes on with the next example.
const FIRST_LINE_ONLY = new Set(["trec", "triviaqa", "samsum", "lsht"]);

/**
 * The best score over the example's answers.
 *
 * @param example What was asked.
 * @param prediction What the model wrote after the prompt.
 * @returns From 0 (wrong) to 1 (right).
 */
export function score(example: Example, prediction: string): number {
  const text = FIRST_LINE_ONLY.has(baseOf(example.task)) ? firstLine(prediction) : prediction;
  const scores = example.answers.map((answer) => SCORES[example.metric](text, answer, example));
  return Math.max(0, ...scores);
}

function firstLine(text: string): string {
  return text.replace(/^\n+/, "").split("\n")[0] ?? "";
}
