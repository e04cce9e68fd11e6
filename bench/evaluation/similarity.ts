/**
 * How alike layers choose.
 *
 * @module
 */
import type { KeptLayer } from "chunkkv/llama-cpp";

/**
 * Jaccard similarity of each layer's choice and that of the compressed layer before it.
 *
 * @param layers What layers kept, by rising layer.
 * @param windowStart Tokens before the observation window: the window itself, which every layer keeps,
 * does not count.
 * @returns One value less than there are layers; the mean over kv heads where each chooses by itself.
 */
export function layerSimilarity(
  layers: readonly Pick<KeptLayer, "indices">[],
  windowStart: number,
): number[] {
  return layers.slice(1).map(({ indices }, i) => {
    const before = layers[i]!.indices;
    const heads = Math.max(indices.length, before.length);
    let sum = 0;
    for (let head = 0; head < heads; head++) {
      sum += jaccard(before[head % before.length]!, indices[head % indices.length]!, windowStart);
    }
    return sum / heads;
  });
}

/** Common elements by all elements of two rising lists, below a limit; 1 where both are empty. */
function jaccard(a: ArrayLike<number>, b: ArrayLike<number>, limit: number): number {
  let [i, j, common, all] = [0, 0, 0, 0];
  for (;;) {
    const x = i < a.length ? a[i]! : Infinity;
    const y = j < b.length ? b[j]! : Infinity;
    if (Math.min(x, y) >= limit) return all === 0 ? 1 : common / all;
    if (x <= y) i++;
    if (y <= x) j++;
    if (x === y) common++;
    all++;
  }
}
