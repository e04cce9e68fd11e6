/**
 * LongBench's other scores, each from 0 to 1, as in its `metrics.py` (arXiv 2308.14508).
 *
 * @module
 */
import { ratio } from "fuzzball";

// LongBench installs fuzzywuzzy alone, which then compares with difflib.
const AS_FUZZYWUZZY = { full_process: false, ratio_alg: "difflib" };

/**
 * One over the number of classes that the prediction names, if the right one is among them.
 *
 * @param classes All classes of the task.
 */
export function classification(
  prediction: string,
  answer: string,
  classes: readonly string[],
): number {
  const named = classes.filter((name) => prediction.includes(name));
  // The original removes from the list that it walks, which skips the one after each that it
  // removes; scores would differ from published ones without that.
  for (let i = 0; i < named.length; i++) {
    const name = named[i]!;
    if (answer.includes(name) && name !== answer) named.splice(named.indexOf(name), 1);
  }
  return named.includes(answer) ? 1 / named.length : 0;
}

/** The share of numbers in the prediction that are the paragraph's of `"Paragraph 12"`. */
export function retrieval(prediction: string, answer: string): number {
  return shareOfNumbers(prediction, paragraphNumber(answer, /Paragraph (\d+)/));
}

/** The same for `"段落12"`. */
export function retrievalChinese(prediction: string, answer: string): number {
  return shareOfNumbers(prediction, paragraphNumber(answer, /段落(\d+)/));
}

/** The share of numbers in the prediction that are the answer. */
export function count(prediction: string, answer: string): number {
  return shareOfNumbers(prediction, answer);
}

/**
 * Similarity of the first line of code to the answer: `fuzz.ratio` of Python's fuzzywuzzy / 100.
 * Where rounding to whole percents is a tie this rounds up, Python to the even one.
 */
export function codeSimilarity(prediction: string, answer: string): number {
  const lines = prediction.replace(/^\n+/, "").split("\n");
  const code = lines.find((line) => !/`|#|\/\//.test(line)) ?? "";
  return ratio(code, answer, AS_FUZZYWUZZY) / 100;
}

function paragraphNumber(answer: string, pattern: RegExp): string {
  const number = pattern.exec(answer)?.[1];
  if (number === undefined) {
    throw new RangeError(`Expected an answer that matches ${pattern} but found "${answer}"`);
  }
  return number;
}

function shareOfNumbers(prediction: string, answer: string): number {
  const numbers = prediction.match(/\d+/g) ?? [];
  const right = numbers.filter((number) => number === answer).length;
  return numbers.length === 0 ? 0 : right / numbers.length;
}
