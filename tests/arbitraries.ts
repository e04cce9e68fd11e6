/**
 * Random cases for property tests, small and odd on purpose.
 *
 * @module
 */
import { type Dtype, type KvData, type QueryView, queryView, rowBytes, usableIsas } from "chunkkv";
import fc from "fast-check";
import { DTYPES } from "../ffi/enums.ts";
import { decodeRow, encodeRow } from "./encode.ts";
import { type Cache, type Layout, layOut, LAYOUTS, type Shape } from "./layouts.ts";
import { attentionRow, type Logits, type Sequence } from "./oracle.ts";
import { random } from "./random.ts";

/** Opened here, at import, and not in a test: the library stays open for the life of the process. */
export const ISAS_HERE = usableIsas();

/** One of the element types of keys. */
export const anyDtype = fc.constantFrom(...Object.keys(DTYPES) as Dtype[]);

/** One of the ways that engines lay rows out. */
export const anyLayout = fc.constantFrom(...LAYOUTS);

/**
 * Tokens of up to three sequences, empty and one-token ones included, and some longer than the tile
 * of keys that kernels work on (96).
 */
export const anyKvLens = fc.array(
  fc.oneof(
    { arbitrary: fc.integer({ min: 0, max: 70 }), weight: 5 },
    { arbitrary: fc.constantFrom(0, 1, 2, 64, 96, 97), weight: 2 },
    { arbitrary: fc.integer({ min: 90, max: 210 }), weight: 2 },
  ),
  { minLength: 1, maxLength: 3 },
);

/** Head sizes that an element type can have. */
export function headDims(dtype: Dtype): number[] {
  const blocks = dtype === "q8_0" || dtype === "q4_0";
  return [40, 64, 80, 96, 128, 256].filter((headDim) => !blocks || headDim % 32 === 0);
}

/** Sizes and types of the attention of one layer. */
export interface AttentionCase extends Logits {
  dtype: Dtype;
  queryDtype: Dtype;
  layout: Layout;
  headDim: number;
  numKvHeads: number;
  group: number;
  kvLens: number[];
  window: number;
  threads: number;
  /** Whether the query heads of a window row lie side by side. */
  queryRowMajor: boolean;
  withLogSumExp: boolean;
  spread: number;
  seed: number;
}

/** Attention of one layer in any type and layout. */
export const anyAttention: fc.Arbitrary<AttentionCase> = anyDtype.chain((dtype) =>
  fc.record({
    dtype: fc.constant(dtype),
    queryDtype: fc.constantFrom<Dtype>("f32", "f16", "bf16"),
    layout: anyLayout,
    headDim: fc.constantFrom(...headDims(dtype)),
    numKvHeads: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 8 }),
    kvLens: anyKvLens,
    window: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constantFrom(1, 16, 32, 64)),
    threads: fc.integer({ min: 1, max: 3 }),
    queryRowMajor: fc.boolean(),
    withLogSumExp: fc.boolean(),
    spread: fc.constantFrom(0.1, 1, 3),
    scale: fc.constantFrom(0, 0, 0.05, 1),
    logitSoftcap: fc.constantFrom(0, 0, 5, 50),
    seed: fc.integer(),
  })
);

/** A case with numbers in it: what C is given, and what the oracle is. */
export interface Attention {
  shape: Shape;
  queries: QueryView;
  keys: Cache;
  /** Decoded, one per sequence; a sequence's unused window rows are NaN. */
  sequences: Sequence[];
}

/** Fills a case with random numbers. */
export function makeAttention(one: AttentionCase): Attention {
  const { dtype, headDim, numKvHeads, kvLens, window, spread } = one;
  const next = random(one.seed);
  // Sums of uniform numbers: near normal, of standard deviation 1.
  const row = () =>
    Array.from(
      { length: headDim },
      () => spread * (next() + next() + next() + next() - 2) * Math.sqrt(3),
    );
  const shape: Shape = { dtype, numKvHeads, headDim, kvLens };
  const grid = <T>(count: number, make: (i: number) => T) =>
    Array.from({ length: count }, (_, i) => make(i));
  const keyRows = kvLens.map((tokens) =>
    grid(numKvHeads, () => grid(tokens, () => encodeRow(dtype, row())))
  );
  const queryRows = kvLens.map((tokens) =>
    grid(
      numKvHeads * one.group,
      () =>
        grid(window, (i) =>
          encodeRow(one.queryDtype, i < window - tokens ? new Array(headDim).fill(NaN) : row())),
    )
  );
  const keys = layOut(one.layout, shape, (b, h, t) => keyRows[b]![h]![t]!);
  const sequences = kvLens.map((_, b) => ({
    keys: keyRows[b]!.map((rows) =>
      rows.map((bytes) => Float64Array.from(decodeRow(dtype, bytes)))
    ),
    queries: queryRows[b]!.map((rows) =>
      rows.map((bytes) => Float64Array.from(decodeRow(one.queryDtype, bytes)))
    ),
  }));
  return { shape, keys, sequences, queries: viewQueries(one, queryRows, sequences) };
}

function viewQueries(
  one: AttentionCase,
  rows: Uint8Array[][][],
  sequences: Sequence[],
): QueryView {
  const { queryDtype, headDim, window, numKvHeads, group, kvLens } = one;
  const numQHeads = numKvHeads * group;
  const row = rowBytes(queryDtype, headDim);
  const strideRow = one.queryRowMajor ? row * numQHeads : row;
  const strideHead = one.queryRowMajor ? row : row * window;
  const strideBatch = row * numQHeads * window;
  const bytes = new Uint8Array(strideBatch * kvLens.length);
  const logSumExp = new Float32Array(kvLens.length * numQHeads * window).fill(NaN);
  rows.forEach((heads, b) =>
    heads.forEach((windowRows, h) =>
      windowRows.forEach((values, i) => {
        bytes.set(values, b * strideBatch + h * strideHead + i * strideRow);
        const visible = kvLens[b]! - window + i + 1;
        if (!one.withLogSumExp || visible < 1) return;
        const { queries, keys } = sequences[b]!;
        const head = keys[Math.floor(h / group)]!;
        logSumExp[(b * numQHeads + h) * window + i] =
          attentionRow(queries[h]![i]!, head, visible, one).logSumExp;
      })
    )
  );
  const data: KvData = queryDtype === "f32" ? new Float32Array(bytes.buffer) : bytes;
  return queryView({
    data,
    dtype: queryDtype,
    batch: kvLens.length,
    numQHeads,
    window,
    headDim,
    strideRow,
    strideHead,
    strideBatch,
    logSumExp: one.withLogSumExp ? logSumExp : undefined,
  });
}
