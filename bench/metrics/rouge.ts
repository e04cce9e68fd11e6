/**
 * ROUGE-L as LongBench computes it: F of the union of longest common subsequences over sentences,
 * each distinct word counted once (the Python package `rouge`).
 *
 * @module
 */
import { lcs } from "js-rouge";
import { chineseWords } from "./chinese.ts";
import { splitWords } from "./words.ts";

// What the Python package adds to the denominator of F.
const EPSILON = 1e-8;

/** ROUGE-L of English texts. */
export function rougeL(prediction: string, answer: string): number {
  const candidate = sentences(prediction);
  const reference = sentences(answer);
  if (candidate.length === 0 || reference.length === 0) return 0;
  const common = new Set<string>();
  for (const sentence of reference) {
    for (const other of candidate) {
      for (const word of lcs(sentence, other)) common.add(word);
    }
  }
  const precision = common.size / new Set(candidate.flat()).size;
  const recall = common.size / new Set(reference.flat()).size;
  return 2 * precision * recall / (precision + recall + EPSILON);
}

/** ROUGE-L of Chinese texts: over their words. */
export function rougeLChinese(prediction: string, answer: string): number {
  return rougeL(chineseWords(prediction).join(" "), chineseWords(answer).join(" "));
}

/** Words of each sentence; one that is blank counts as one empty word, as in the package. */
function sentences(text: string): string[][] {
  return text
    .split(".")
    .filter((sentence) => sentence !== "")
    .map((sentence) => splitWords(sentence))
    .map((words) => words.length === 0 ? [""] : words);
}
