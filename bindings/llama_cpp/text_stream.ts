/**
 * Pieces of a text as they are generated: whole characters only, and nothing of a stop text.
 *
 * @module
 */

/** Turns the bytes of tokens into text, and watches for stop texts. */
export class TextStream {
  readonly #decoder = new TextDecoder();
  readonly #stops: readonly string[];
  #held = "";
  #isStopped = false;

  /** @param stops Texts that end the stream; empty ones are ignored. */
  constructor(stops: readonly string[] = []) {
    this.#stops = stops.filter((stop) => stop.length > 0);
  }

  /** Whether a stop text came. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  /**
   * Takes the bytes of one more token.
   *
   * @param bytes The bytes, which may end inside a character.
   * @returns The text that is certain now; what could begin a stop text is held back.
   */
  push(bytes: Uint8Array): string {
    return this.#take(this.#decoder.decode(bytes, { stream: true }));
  }

  /**
   * Ends the stream.
   *
   * @returns The text that was held back.
   */
  end(): string {
    const text = this.#take(this.#decoder.decode());
    const rest = this.#isStopped ? "" : this.#held;
    this.#held = "";
    return text + rest;
  }

  #take(text: string): string {
    if (this.#isStopped) return "";
    const whole = this.#held + text;
    const stop = firstComplete(whole, this.#stops);
    if (stop) {
      this.#isStopped = true;
      this.#held = "";
      return whole.slice(0, stop.start);
    }
    const held = Math.max(0, ...this.#stops.map((stop) => overlap(whole, stop)));
    this.#held = whole.slice(whole.length - held);
    return whole.slice(0, whole.length - held);
  }
}

/**
 * Where the stop text that is complete first stands; of several that end together the longest.
 * By its end, not its start: then it does not matter in which pieces the text came.
 */
function firstComplete(text: string, stops: readonly string[]) {
  let first: { start: number; end: number } | undefined;
  for (const stop of stops) {
    const start = text.indexOf(stop);
    const end = start + stop.length;
    if (start < 0) continue;
    if (!first || end < first.end || (end === first.end && start < first.start)) {
      first = { start, end };
    }
  }
  return first;
}

/** Characters at the end of a text that could begin a stop text. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (stop.startsWith(text.slice(text.length - length))) return length;
  }
  return 0;
}
