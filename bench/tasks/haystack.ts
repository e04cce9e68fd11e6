/**
 * A text cut to a length in tokens, at ends of sentences.
 *
 * @module
 */
import { sum } from "simple-statistics";
import { randomIndex } from "../random.ts";
import { UsageError } from "../usage.ts";

/** Sentences to fill a context with, and how many tokens each has. */
export class Haystack {
  readonly #sentences: string[];
  readonly #tokens: number[];
  readonly #countTokens: (text: string) => number;

  /**
   * @param text What the context is filled with.
   * @param countTokens Tokens of a text, as the model counts them.
   */
  constructor(text: string, countTokens: (text: string) => number) {
    const segmenter = new Intl.Segmenter("en", { granularity: "sentence" });
    // A line's end inside a paragraph would count as a sentence's.
    const unwrapped = text.replaceAll("\r\n", "\n").replaceAll(/(?<=[^\n])\n(?=[^\n])/g, " ");
    this.#sentences = [...segmenter.segment(unwrapped)].map(({ segment }) => segment);
    this.#tokens = this.#sentences.map(countTokens);
    this.#countTokens = countTokens;
  }

  /**
   * As many whole sentences as fit in `length` tokens together with the needle, from a random one
   * on, the text repeated where it is too short.
   *
   * @param length Most tokens of the result.
   * @param needle A sentence.
   * @param depth Share of the tokens before the needle, to the nearest end of a sentence.
   * @param random Where to start.
   */
  fill(length: number, needle: string, depth: number, random: () => number): string {
    const start = randomIndex(random, this.#sentences.length);
    let count = this.#estimate(start, length - this.#countTokens(needle));
    const build = (count: number) => this.#insert(start, count, needle, depth);
    const fits = (count: number) => this.#countTokens(build(count)) <= length;
    // Sentences counted alone do not add up to the whole exactly.
    while (count > 0 && !fits(count)) count--;
    while (count > 0 && fits(count + 1)) count++;
    if (count === 0) {
      throw new UsageError(
        `Expected lengths with room for the needle and a sentence but found ${length}`,
      );
    }
    return build(count);
  }

  /** Sentences from `start` on whose tokens add up to at most `tokens`. */
  #estimate(start: number, tokens: number): number {
    let count = 0;
    for (let left = tokens; (left -= this.#tokensOf(start + count)) >= 0;) count++;
    return count;
  }

  #insert(start: number, count: number, needle: string, depth: number): string {
    const sentences = Array.from({ length: count }, (_, i) => this.#sentence(start + i));
    const tokens = sentences.map((_, i) => this.#tokensOf(start + i));
    const before = sentencesBefore(tokens, depth * sum(tokens));
    const head = sentences.slice(0, before).join("");
    const tail = sentences.slice(before).join("");
    return `${spaced(head)}${spaced(needle)}${tail}`.trim();
  }

  #sentence(index: number): string {
    return this.#at(this.#sentences, index);
  }

  #tokensOf(index: number): number {
    // Never 0, or a text of nothing but those would never end.
    return Math.max(1, this.#at(this.#tokens, index));
  }

  #at<T>(list: readonly T[], index: number): T {
    return list[index % list.length]!;
  }
}

/** How many sentences end nearest to `target` tokens. */
function sentencesBefore(tokens: readonly number[], target: number): number {
  let [best, at] = [0, 0];
  for (const [i, count] of tokens.entries()) {
    const next = at + count;
    if (Math.abs(next - target) < Math.abs(at - target)) best = i + 1;
    at = next;
  }
  return best;
}

function spaced(text: string): string {
  return text === "" || /\s$/.test(text) ? text : text + " ";
}
