/**
 * A small cache whose rows tell where they are from.
 *
 * @module
 */
import { Kept, queryView } from "chunkkv";
import { PagedKvCache, type PagedKvCacheOptions, type PagedSequence } from "chunkkv/paged";
import { assertEquals } from "@std/assert";
import { random } from "../random.ts";
import { bytesOf, DEVICE, floatsOf, queriesThere } from "./device.ts";

/** Sizes of the rows. */
export const HEAD_DIM = 8, LAYERS = 2;

/** Two layers of 16 blocks of 4 tokens, in f32. */
export function makeCache(options: Partial<PagedKvCacheOptions> = {}): PagedKvCache {
  const sizes = { numLayers: LAYERS, numKvHeads: 1, headDim: HEAD_DIM, blockSize: 4 };
  const common = { numBlocks: 16, dtype: "f32", threads: 1, device: DEVICE } as const;
  return new PagedKvCache({ ...sizes, ...common, ...options });
}

/** Appends rows that tell their position and layer. */
export function fill(
  cache: PagedKvCache,
  sequence: PagedSequence,
  count: number,
  ids = true,
): void {
  const begin = sequence.position;
  const tokens = Array.from({ length: count }, (_, i) => begin + i);
  const { slotMapping, positions } = sequence.append(ids ? tokens : count);
  for (let layer = 0; layer < LAYERS; layer++) {
    const keys = new Float32Array(count * HEAD_DIM);
    positions.forEach((p, i) => keys.fill(p + layer * 1000, i * HEAD_DIM, (i + 1) * HEAD_DIM));
    cache.write(layer, { slotMapping, keys, values: keys.map((value) => -value) });
  }
  sequence.commit();
}

/** Positions of the rows of a layer, read from keys and values. */
export function positionsOf(cache: PagedKvCache, sequence: PagedSequence, layer: number): number[] {
  const numbers = (["keys", "values"] as const).map((kind) => {
    const floats = floatsOf(cache.layer(layer)[kind]);
    return Array.from({ length: sequence.length }, (_, i) => {
      const block = sequence.blocks[Math.floor(i / 4)]!;
      return Math.abs(floats[(block * 4 + i % 4) * HEAD_DIM]!) - layer * 1000;
    });
  });
  assertEquals(numbers[0], numbers[1]);
  return numbers[0]!;
}

/** All pages, one after the other. */
export function allBytes(cache: PagedKvCache): Uint8Array {
  const parts = Array.from({ length: LAYERS }, (_, layer) => layer).flatMap((layer) =>
    [cache.layer(layer).keys, cache.layer(layer).values].map(bytesOf)
  );
  const all = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** What must not change where something fails. */
export function snapshot(cache: PagedKvCache, sequence: PagedSequence) {
  const { length, dropped, blocks } = sequence;
  return { stats: cache.stats, length, dropped, blocks: [...blocks] };
}

/** The same indices for both layers. */
export function bothLayers(...indices: number[]): Kept[] {
  return Array.from({ length: LAYERS }, () => Kept.from([[indices]]));
}

/** Queries of both layers. */
export function randomQueries(window: number, seed: number) {
  const next = random(seed);
  return Array.from({ length: LAYERS }, () => {
    const data = Float32Array.from({ length: 2 * window * HEAD_DIM }, () => next() - 0.5);
    return queriesThere(queryView({ data, numQHeads: 2, window, headDim: HEAD_DIM }));
  });
}
