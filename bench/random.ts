/**
 * Random numbers that are the same on every machine.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";

/**
 * A generator of numbers in `[0, 1)`.
 *
 * @param parts What the numbers are for, the user's seed first: other parts, other numbers, so that
 * one more example of a benchmark does not change the rest.
 */
export function seededRandom(...parts: (string | number)[]): () => number {
  const seed = createHash("sha256").update(JSON.stringify(parts)).digest().readInt32LE();
  const generator = xoroshiro128plus(seed);
  return () => (generator.next() >>> 0) / 2 ** 32;
}

/** A whole number from 0 to `count - 1`. */
export function randomIndex(random: () => number, count: number): number {
  return Math.floor(random() * count);
}
