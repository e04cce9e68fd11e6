/**
 * Names for the full blocks of a sequence: equal names, equal tokens up to there.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { checkIntegers } from "./integers.ts";

/** Copies token ids. */
export function toTokens(tokens: ArrayLike<number>): Int32Array<ArrayBuffer> {
  checkIntegers("a token id", tokens, 0);
  return Int32Array.from(tokens);
}

/**
 * The hash of each full block of a sequence, as its tokens come: that of its tokens and of the block
 * before it, so that a block is only found behind the same prefix.
 */
export class Prefix {
  readonly #blockSize: number;
  #parent: string;
  #pending: Int32Array<ArrayBuffer>[] = [];
  #numPending = 0;

  /**
   * @param blockSize Tokens of a block.
   * @param salt Sequences of different salts have no hash in common.
   */
  constructor(blockSize: number, salt: string) {
    this.#blockSize = blockSize;
    this.#parent = createHash("sha256").update(salt).digest("base64");
  }

  /** A copy that goes its own way. */
  fork(): Prefix {
    const copy = new Prefix(this.#blockSize, "");
    copy.#parent = this.#parent;
    copy.#pending = [...this.#pending];
    copy.#numPending = this.#numPending;
    return copy;
  }

  /** Adds tokens, which it keeps. */
  push(tokens: Int32Array<ArrayBuffer>): void {
    this.#pending.push(tokens);
    this.#numPending += tokens.length;
  }

  /** Tokens since the last full block that was hashed. */
  get numPending(): number {
    return this.#numPending;
  }

  /** Takes the newest tokens back, at most the pending ones. */
  takeBack(count: number): void {
    this.#keep(this.#flat().subarray(0, this.#numPending - count));
  }

  /**
   * Hashes the full blocks among the pending tokens.
   *
   * @param accept Is given each hash; `false` stops before that block.
   */
  advance(accept: (hash: string) => boolean): void {
    const size = this.#blockSize;
    if (this.#numPending < size) return;
    const tokens = this.#flat();
    let begin = 0;
    for (; begin + size <= tokens.length; begin += size) {
      const hash = hashBlock(this.#parent, tokens.subarray(begin, begin + size));
      if (!accept(hash)) break;
      this.#parent = hash;
    }
    this.#keep(tokens.slice(begin));
  }

  #keep(tokens: Int32Array<ArrayBuffer>): void {
    this.#pending = [tokens];
    this.#numPending = tokens.length;
  }

  #flat(): Int32Array<ArrayBuffer> {
    if (this.#pending.length === 1) return this.#pending[0]!;
    const all = new Int32Array(this.#numPending);
    let at = 0;
    for (const tokens of this.#pending) {
      all.set(tokens, at);
      at += tokens.length;
    }
    return all;
  }
}

function hashBlock(parent: string, tokens: Int32Array<ArrayBuffer>): string {
  return createHash("sha256").update(parent).update(tokens).digest("base64");
}
