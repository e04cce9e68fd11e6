/**
 * A paged cache as plain arrays: every sequence has its rows for itself.
 *
 * @module
 */
import type { Dtype, Kept, KvView } from "chunkkv";
import { type LayerPages, type PagedBatch, rowOffset } from "chunkkv/paged";
import { encodeRow } from "../encode.ts";
import { random } from "../random.ts";
import { bytesOf } from "./device.ts";

/** Sizes of rows. */
export interface RowShape {
  numLayers: number;
  numKvHeads: number;
  headDim: number;
  dtype: Dtype;
}

/** The two kinds of rows. */
export const KINDS = ["keys", "values"] as const;

/** Keys or values. */
export type Kind = typeof KINDS[number];

/** What one token left in the cache: `[layer][head]`, of keys and of values. */
export type TokenRows = Record<Kind, Uint8Array<ArrayBuffer>[][]>;

/** Makes rows that depend on a token and all before it, as a model's do, and nothing else. */
export class RowSource {
  readonly #shape: RowShape;
  readonly #known = new Map<string, TokenRows>();

  constructor(shape: RowShape) {
    this.#shape = shape;
  }

  /** The rows of the last of `tokens`. */
  at(tokens: readonly number[], salt: string): TokenRows {
    const key = `${salt}:${tokens.join()}`;
    const known = this.#known.get(key);
    if (known) return known;
    let seed = 17;
    for (let i = 0; i < key.length; i++) seed = Math.imul(seed ^ key.charCodeAt(i), 0x01000193);
    const next = random(seed);
    const { numLayers, numKvHeads, headDim, dtype } = this.#shape;
    const row = () => encodeRow(dtype, Array.from({ length: headDim }, () => 4 * next() - 2));
    const layers = () =>
      Array.from({ length: numLayers }, () => Array.from({ length: numKvHeads }, row));
    const rows = { keys: layers(), values: layers() };
    this.#known.set(key, rows);
    return rows;
  }
}

/** One sequence: the rows that it must have, and its tokens. */
export class DenseSequence {
  /** All tokens seen. */
  tokens: number[] = [];
  /** `[layer][head][slot]` of the rows in the cache. */
  rows: Record<Kind, Uint8Array<ArrayBuffer>[][][]>;
  /** Slots at the last commit. */
  committed = 0;

  constructor(readonly shape: RowShape, readonly salt: string) {
    const empty = () =>
      Array.from(
        { length: shape.numLayers },
        () => Array.from({ length: shape.numKvHeads }, (): Uint8Array<ArrayBuffer>[] => []),
      );
    this.rows = { keys: empty(), values: empty() };
  }

  /** Tokens in the cache. */
  get length(): number {
    return this.rows.keys[0]![0]!.length;
  }

  /** Adds a token, and tells its rows. */
  push(token: number, source: RowSource): TokenRows {
    this.tokens.push(token);
    const rows = source.at(this.tokens, this.salt);
    for (const kind of KINDS) {
      this.rows[kind].forEach((heads, layer) =>
        heads.forEach((slots, head) => slots.push(rows[kind][layer]![head]!))
      );
    }
    return rows;
  }

  /** Takes back what was pushed since the last commit. */
  rollback(): void {
    this.tokens.length -= this.length - this.committed;
    this.#each((slots) => slots.slice(0, this.committed));
  }

  /** Keeps some of the rows. */
  compact(kept: readonly Kept[]): void {
    this.#each((slots, layer, head) =>
      Array.from(kept[layer]!.at(0, head), (index) => slots[index]!)
    );
    this.committed = this.length;
  }

  /** A copy that goes its own way. */
  fork(): DenseSequence {
    const copy = new DenseSequence(this.shape, this.salt);
    copy.tokens = [...this.tokens];
    for (const kind of KINDS) copy.rows[kind] = this.rows[kind];
    copy.#each((slots) => [...slots]);
    copy.committed = this.committed;
    return copy;
  }

  #each(
    change: (
      slots: Uint8Array<ArrayBuffer>[],
      layer: number,
      head: number,
    ) => Uint8Array<ArrayBuffer>[],
  ): void {
    for (const kind of KINDS) {
      this.rows[kind] = this.rows[kind].map((heads, layer) =>
        heads.map((slots, head) => change(slots, layer, head))
      );
    }
  }
}

/** Row `(sequence, head, token)` of a batch, found by the block table as a kernel finds it. */
export function pagedRow(
  batch: PagedBatch,
  view: KvView,
  bytes: Uint8Array<ArrayBuffer>,
  [sequence, head, token]: [number, number, number],
  rowBytes: number,
): Uint8Array<ArrayBuffer> {
  const { blockSize } = view;
  const entry = sequence * batch.maxBlocks + Math.floor(token / blockSize);
  const slot = batch.blockTable[entry]! * blockSize + token % blockSize;
  const begin = rowOffset(view, slot, head);
  return bytes.subarray(begin, begin + rowBytes);
}

/** Writes the rows of one token where its slot is. */
export function writeToken(
  pages: LayerPages,
  slot: number,
  rows: TokenRows,
  layer: number,
): void {
  for (const kind of KINDS) {
    const bytes = bytesOf(pages[kind]);
    rows[kind][layer]!.forEach((row, head) => bytes.set(row, rowOffset(pages[kind], slot, head)));
  }
}
