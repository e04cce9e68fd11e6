/**
 * Prompts that begin alike are read once up to where they part.
 *
 * @module
 */

/** Tokens of a prompt. */
export type Tokens = Int32Array<ArrayBuffer>;

/** Tokens that two prompts begin with. */
export function commonPrefix(a: Tokens, b: Tokens): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a[length] === b[length]) length++;
  return length;
}

/** Orders prompts so that those that begin alike are neighbours. */
export function compareTokens(a: Tokens, b: Tokens): number {
  const common = commonPrefix(a, b);
  return (a[common] ?? -1) - (b[common] ?? -1);
}

// A state that saves fewer tokens than this is not worth its memory.
const LEAST_SAVED = 48;

/**
 * Where reading a prompt must pause so that later ones can start from there.
 *
 * @param prompts All prompts, ordered by {@linkcode compareTokens}.
 * @param index The one that is read.
 * @param start Tokens of it that are in the cache already.
 * @returns Lengths, rising, each above `start` and below the prompt's length.
 */
export function branchPoints(prompts: readonly Tokens[], index: number, start: number): number[] {
  const prompt = prompts[index]!;
  const points: number[] = [];
  // What the prompt shares with a later one is the least that neighbours on the way share.
  let shared = prompt.length - 1;
  for (let i = index; i + 1 < prompts.length && shared > start; i++) {
    // All but the last token of a prompt can be shared: its logits are wanted.
    const common = commonPrefix(prompts[i]!, prompts[i + 1]!);
    shared = Math.min(shared, common, prompts[i + 1]!.length - 1);
    const last = points[0] ?? Infinity;
    if (shared >= start + LEAST_SAVED && shared <= last - LEAST_SAVED) points.unshift(shared);
  }
  return points;
}
