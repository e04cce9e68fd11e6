/**
 * An answer that is generated round by round.
 *
 * @module
 */
import type { GeneratedText } from "chunkkv/llama-cpp";
import type { AnswerRequest } from "./answers.ts";

const LONGEST_CYCLE = 64;
const LEAST_REPEATS = 3;
const LEAST_REPEATED = 48;

/**
 * Tokens after which a text repeats itself, 0 if it does not: at least three times, and for 48 tokens.
 *
 * @param tokens The text.
 */
export function cycleLength(tokens: readonly number[]): number {
  for (let cycle = 1; cycle <= LONGEST_CYCLE; cycle++) {
    const repeated = Math.max(LEAST_REPEATS * cycle, LEAST_REPEATED);
    if (repeated > tokens.length) return 0;
    let i = tokens.length - 1;
    while (i >= tokens.length - repeated + cycle && tokens[i] === tokens[i - cycle]) i--;
    if (i < tokens.length - repeated + cycle) return cycle;
  }
  return 0;
}

/**
 * One sequence's answer. A greedy model that repeats itself does so to the end: small ones often do,
 * and the rest is then written without asking it.
 */
export class GrowingAnswer {
  readonly request: AnswerRequest;
  /** Where it is generated. */
  readonly sequence: number;
  readonly tokens: number[] = [];
  readonly #detokenize: (tokens: readonly number[]) => string;
  #isComplete = false;

  /** @param detokenize Tokens to text. */
  constructor(
    request: AnswerRequest,
    sequence: number,
    detokenize: (tokens: readonly number[]) => string,
  ) {
    this.request = request;
    this.sequence = sequence;
    this.#detokenize = detokenize;
  }

  /** Whether nothing more is to be generated. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** Adds what was generated in a round. */
  add({ tokens, reason }: GeneratedText): void {
    const { maxTokens } = this.request;
    this.tokens.push(...tokens);
    const cycle = reason === "length" ? cycleLength(this.tokens) : 0;
    while (cycle > 0 && this.tokens.length < maxTokens) {
      this.tokens.push(this.tokens[this.tokens.length - cycle]!);
    }
    // A stop text may lie across two rounds.
    const stopped = this.#end() < this.#text().length;
    this.#isComplete = reason !== "length" || stopped || this.tokens.length >= maxTokens;
  }

  /** The text up to where it stops, spaces around it included: code is scored with them. */
  get text(): string {
    return this.#text().slice(0, this.#end());
  }

  #text(): string {
    return this.#detokenize(this.tokens);
  }

  #end(): number {
    const text = this.#text();
    const places = this.request.stop.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    return Math.min(text.length, ...places);
  }
}
