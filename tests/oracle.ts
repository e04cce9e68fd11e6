/**
 * The method in float64, written for clarity: what every kernel is compared with.
 *
 * @module
 */

/** Attention of one layer, decoded to numbers, of one sequence. */
export interface Sequence {
  /** Queries of the window: `[numQHeads][window][headDim]`, the last `window` positions. */
  queries: ArrayLike<number>[][];
  /** Keys: `[numKvHeads][tokens][headDim]`. */
  keys: ArrayLike<number>[][];
}

/** What a model's attention does to its logits. */
export interface Logits {
  /** Factor of `q.k`; 0 means `1 / sqrt(headDim)`. */
  scale: number;
  /** 0 means none. */
  logitSoftcap: number;
}

/** Settings of chunk selection. */
export interface ChunkSettings {
  budget: number;
  window: number;
  chunkSize: number;
  reduce: "sum" | "mean" | "max";
  fill: "exact" | "none";
}

/** Attention mass of a sequence, and what bounds the rounding of it. */
export interface Mass {
  /** `[numKvHeads][tokens - window]`: sum over the group's heads and the window's rows. */
  mass: number[][];
  /** The largest `sum |q_j k_j| * scale` of any logit. */
  largestLogitSum: number;
}

function range(begin: number, end: number): number[] {
  return Array.from({ length: Math.max(0, end - begin) }, (_, i) => begin + i);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function argsortDescending(values: readonly number[]): number[] {
  return range(0, values.length).sort((a, b) => values[b]! - values[a]! || a - b);
}

/** Softmax over the keys that row `row` of `window` sees, causal. */
export function attentionRow(
  query: ArrayLike<number>,
  keys: ArrayLike<number>[],
  visible: number,
  { scale, logitSoftcap }: Logits,
): { weights: number[]; largestLogitSum: number; logSumExp: number } {
  const factor = scale || 1 / Math.sqrt(query.length);
  let largestLogitSum = 0;
  const logits = keys.slice(0, visible).map((key) => {
    let dot = 0, absolute = 0;
    for (let j = 0; j < query.length; j++) {
      const product = query[j]! * key[j]!;
      dot += product;
      absolute += Math.abs(product);
    }
    largestLogitSum = Math.max(largestLogitSum, absolute * factor);
    const logit = dot * factor;
    return logitSoftcap ? logitSoftcap * Math.tanh(logit / logitSoftcap) : logit;
  });
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const exponentials = logits.map((logit) => Math.exp(logit - most));
  const total = sum(exponentials);
  return {
    weights: exponentials.map((value) => value / total),
    largestLogitSum,
    logSumExp: most + Math.log(total),
  };
}

/** Steps 1 and 2 of the method, for each kv head. */
export function attentionMass(sequence: Sequence, window: number, logits: Logits): Mass {
  const { queries, keys } = sequence;
  const group = queries.length / keys.length;
  let largestLogitSum = 0;
  const mass = keys.map((rows, head) => {
    const tokens = rows.length;
    const inWindow = Math.min(window, tokens);
    const scored = tokens - inWindow;
    const masses = new Array<number>(scored).fill(0);
    for (let h = head * group; h < (head + 1) * group; h++) {
      for (let i = 0; i < inWindow; i++) {
        const query = queries[h]![window - inWindow + i]!;
        const row = attentionRow(query, rows, scored + i + 1, logits);
        largestLogitSum = Math.max(largestLogitSum, row.largestLogitSum);
        for (let t = 0; t < scored; t++) masses[t]! += row.weights[t]!;
      }
    }
    return masses;
  });
  return { mass, largestLogitSum };
}

/**
 * Token scores of h2o, for each kv head: attention of all rows that see a token. There are as many rows
 * as `queries` has, the last ones of the sequence.
 */
export function accumulatedMass({ queries, keys }: Sequence, rows: number, logits: Logits): Mass {
  const group = queries.length / keys.length;
  let largestLogitSum = 0;
  const mass = keys.map((tokens, head) => {
    const masses = new Array<number>(tokens.length).fill(0);
    const used = Math.min(rows, tokens.length);
    for (let h = head * group; h < (head + 1) * group; h++) {
      for (let i = 0; i < used; i++) {
        const visible = tokens.length - used + i + 1;
        const row = attentionRow(queries[h]![rows - used + i]!, tokens, visible, logits);
        largestLogitSum = Math.max(largestLogitSum, row.largestLogitSum);
        row.weights.forEach((weight, t) => masses[t]! += weight);
      }
    }
    return masses;
  });
  return { mass, largestLogitSum };
}

/** Token scores of chunkkv: attention mass of all heads together, a share for each token after it. */
export function summedScores({ mass }: Mass, spread = 1): number[] {
  const sums = (mass[0] ?? []).map((_, t) => sum(mass.map((row) => row[t]!)));
  return sums.map((_, t) => sum(sums.slice(Math.max(0, t - spread + 1), t + 1)) / spread);
}

/** Token scores of snapkv: mean over the group and the window, average-pooled, zeros counted. */
export function pooledScores({ mass }: Mass, rows: number, poolSize: number): number[][] {
  const radius = (poolSize - 1) / 2;
  return mass.map((masses) =>
    masses.map((_, t) =>
      sum(masses.slice(Math.max(0, t - radius), t + radius + 1)) / (poolSize * rows)
    )
  );
}

/** The chunks of `[0, scored)`, the last one perhaps short. */
export function chunksOf(scored: number, chunkSize: number): [begin: number, end: number][] {
  const count = Math.ceil(scored / chunkSize);
  return range(0, count).map((j) => [j * chunkSize, Math.min(scored, (j + 1) * chunkSize)]);
}

/** Step 3: chunk scores. */
export function chunkScores(
  scores: ArrayLike<number>,
  scored: number,
  chunkSize: number,
  reduce: ChunkSettings["reduce"],
): number[] {
  return chunksOf(scored, chunkSize).map(([begin, end]) => {
    const values = range(begin, end).map((t) => scores[t]!);
    if (reduce === "max") return values.reduce((a, b) => Math.max(a, b), -Infinity);
    return reduce === "mean" ? sum(values) / values.length : sum(values);
  });
}

/** Where the run of `length` scores with the highest sum begins in `[begin, end)`; first on ties. */
function bestRun(scores: ArrayLike<number>, begin: number, end: number, length: number): number {
  const sums = range(begin, end - length + 1).map((from) =>
    sum(range(from, from + length).map((t) => scores[t]!))
  );
  return begin + argsortDescending(sums)[0]!;
}

/** Steps 4 and 5: kept indices of chunkkv for one sequence of `tokens` tokens. */
export function selectChunks(
  scores: ArrayLike<number>,
  tokens: number,
  { budget, window, chunkSize, reduce, fill }: ChunkSettings,
): number[] {
  if (fill === "exact" && budget >= tokens) return range(0, tokens);
  const scored = tokens - Math.min(window, tokens);
  if (budget < window) return range(fill === "none" ? scored : tokens - budget, tokens);
  const chunks = chunksOf(scored, chunkSize);
  const order = argsortDescending(chunkScores(scores, scored, chunkSize, reduce));
  const whole = Math.min(Math.floor((budget - window) / chunkSize), chunks.length);
  const kept = order.slice(0, whole).flatMap((j) => range(...chunks[j]!));
  let rest = fill === "none" ? 0 : budget - window - kept.length;
  for (const j of order.slice(whole)) {
    const [begin, end] = chunks[j]!;
    const length = Math.min(rest, end - begin);
    if (length === 0) break;
    const from = bestRun(scores, begin, end, length);
    kept.push(...range(from, from + length));
    rest -= length;
  }
  return [...kept, ...range(scored, tokens)].sort((a, b) => a - b);
}

/** Kept indices of snapkv for one kv head. */
export function selectTokens(
  scores: ArrayLike<number>,
  tokens: number,
  budget: number,
  window: number,
): number[] {
  const scored = tokens - Math.min(window, tokens);
  if (budget < window) return range(Math.max(0, tokens - budget), tokens);
  const best = argsortDescending(range(0, scored).map((t) => scores[t]!))
    .slice(0, budget - window);
  return [...best, ...range(scored, tokens)].sort((a, b) => a - b);
}

/** Kept indices of h2o for one kv head. */
export function selectHeavy(scores: ArrayLike<number>, tokens: number, budget: number): number[] {
  if (budget >= tokens) return range(0, tokens);
  const newest = tokens - Math.ceil(budget / 2);
  const best = argsortDescending(range(0, newest).map((t) => scores[t]!));
  return [...best.slice(0, Math.floor(budget / 2)), ...range(newest, tokens)].sort((a, b) => a - b);
}

/**
 * Tokens of a layer that pyramidkv keeps, not rounded: the line of its published code through the
 * window and, beside it, `most` tokens in the first layer, `2 * (budget - window) - most` in the last.
 */
export function pyramidLine(
  { budget, window, tokens }: { budget: number; window: number; tokens: number },
  layer: number,
  numLayers: number,
): number {
  if (budget <= window || budget >= tokens || numLayers === 1) return budget;
  const mean = budget - window;
  let least = Math.floor(mean / 20);
  let most = 2 * mean - least;
  if (most >= tokens - window) {
    most = tokens - window;
    least = 2 * mean - most;
  }
  return window + most - layer * (most - least) / (numLayers - 1);
}

/** Kept indices of streaming_llm. */
export function selectSinks(tokens: number, budget: number, sinks: number): number[] {
  if (budget >= tokens) return range(0, tokens);
  const first = Math.min(sinks, budget - 1);
  return [...range(0, first), ...range(tokens - (budget - first), tokens)];
}

/** Where the rows of keys or values are, in bytes. */
export type RowOffset = (sequence: number, head: number, token: number) => number;

/** Moves row `kept[i]` to row `i`, byte by byte, from a copy of the source. */
export function compactRows(
  from: Uint8Array,
  fromOffset: RowOffset,
  to: Uint8Array,
  toOffset: RowOffset,
  rowBytes: number,
  numKvHeads: number,
  kept: (sequence: number, head: number) => ArrayLike<number>,
  batch: number,
): void {
  const source = from.slice();
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < numKvHeads; head++) {
      const indices = kept(b, head);
      for (let i = 0; i < indices.length; i++) {
        const begin = fromOffset(b, head, indices[i]!);
        to.set(source.subarray(begin, begin + rowBytes), toOffset(b, head, i));
      }
    }
  }
}
