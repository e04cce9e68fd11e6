/**
 * Prompts for models of random weights.
 *
 * @module
 */

/** Random tokens above the first 300, where byte tokens and special ones are. Always the same. */
export function randomTokens(length: number, vocabSize: number): Int32Array<ArrayBuffer> {
  let state = 1;
  return Int32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 300 + state % (vocabSize - 300);
  });
}
