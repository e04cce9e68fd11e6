/**
 * Scores that are right or wrong: numbers.
 *
 * @module
 */

const NUMBER = /-?\d[\d,]*(?:\.\d+)?/g;

/**
 * GSM8K: whether the last number of the prediction is the answer. What follows once the model asks
 * itself the next question does not count.
 */
export function gsm8k(prediction: string, answer: string): number {
  const own = prediction.split(/\n\s*(?:Q|Question):/)[0] ?? "";
  const last = own.match(NUMBER)?.at(-1);
  return last !== undefined && numeric(last) === numeric(answer) ? 1 : 0;
}

/** Needle: whether the prediction has the answer's number, whole and with all its digits. */
export function needle(prediction: string, answer: string): number {
  const numbers: string[] = prediction.replaceAll(/(?<=\d),(?=\d)/g, "").match(/\d+/g) ?? [];
  return numbers.includes(answer) ? 1 : 0;
}

function numeric(text: string): number {
  return Number(text.replaceAll(",", ""));
}
