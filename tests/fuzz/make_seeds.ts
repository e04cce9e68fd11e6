/**
 * The fuzzers' first inputs, whole ones from which they go on: writes `tests/fuzz/seeds/`.
 *
 * `deno run --allow-read --allow-write tests/fuzz/make_seeds.ts`
 *
 * @module
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const FOLDER = fileURLToPath(new URL("seeds", import.meta.url));
const NUL = "\0";

type Part = number | number[] | string;

/** Numbers are bytes, texts are UTF-8. */
function bytes(...parts: Part[]): Uint8Array {
  return new Uint8Array(
    parts.flatMap((part) => typeof part === "string" ? [...new TextEncoder().encode(part)] : part),
  );
}

function u32(...values: number[]): number[] {
  return [...new Uint8Array(new Uint32Array(values).buffer)];
}

function u64(value: number): number[] {
  return u32(value, 0);
}

/** A stage's call without a fault, as `call.c` reads it. */
function abi(stage: number, method: number, layout: number, dtype: number): Uint8Array {
  const params = [method, 20, 7, 3, 0, method % 2, 0, 1, 3, 255];
  const block = layout === 2 ? [1] : layout === 3 ? [3, 1] : [];
  const views = [dtype, 2, 1, 2, 60, layout, ...block, layout, ...block, layout, ...block];
  const backing = [0, 1, 2].flatMap((view) => [...u32(4 * view + 4), 2]);
  const queries = [1, 0, 255, ...u32(stage === 0 ? 1 : 5)];
  const scores = [200, ...u32(7)];
  const kept = [200, 0, 9, 9];
  return bytes(stage, stage + method, params, views, 0, backing, queries, scores, kept, 0, 255);
}

/** One cache's part of a state: positions from 0 on, `layers` layers with rows of `row` bytes. */
function cache(cells: number, layers: number, row: number, streams = 1): number[] {
  const counts = [...Array(streams - 1).fill(0), cells];
  const side = Array.from({ length: layers }, () => [
    ...u32(1),
    ...u64(row),
    ...Array<number>(cells * row).fill(7),
  ]).flat();
  const list = Array.from({ length: cells }, (_, i) => u32(2 * i, 1, 0)).flat();
  return [...u32(streams, ...counts), ...list, ...u32(0, layers), ...side, ...side];
}

const header = u32(0xaf143cd8, 0);

const SEEDS: Record<string, Record<string, Uint8Array>> = {
  abi: Object.fromEntries(
    [0, 1, 2, 3, 4, 5, 6, 7].flatMap((stage) =>
      [0, 1, 2, 3].flatMap((method) =>
        [0, 1, 2, 3].map((layout) => [
          `stage${stage}-method${method}-layout${layout}`,
          abi(stage, method, layout, (stage + method + layout) % 6),
        ])
      )
    ).concat([29, 30, 31].map((which) => [`which${which}`, bytes(which, 0, u32(3, 5, 130, 7))])),
  ),
  state: {
    "restore-one-cache": bytes(0, 1, 9, 0, 0, 0, header, cache(4, 2, 6)),
    "restore-two-caches": bytes(0, 2, 9, 9, 0, 0, header, cache(3, 1, 4), cache(3, 2, 2)),
    // Found by the fuzzer: cells announced, and nothing after them.
    "restore-cut-second-cache": bytes(0, 2, 9, 9, 0, 0, header, cache(3, 1, 4), u32(1, 3)),
    "replace-positions": bytes(1, 2, 0, 3, 3, 3, 3, 4, 0, 0, cache(4, 2, 4)),
    "replace-in-last-stream": bytes(1, 1, 2, 3, 3, 4, 0, 0, cache(4, 1, 4, 3)),
    "read-cells": bytes(2, 0, 1, 4, 1, u32(0xaf143cd8, 0xffffffff), cache(4, 1, 4)),
    "read-cells-of-stream": bytes(2, 0, 0, 4, 0, u32(0xaf143cd8, 0xffffffff), cache(4, 1, 4, 3)),
  },
  settings: {
    all: bytes(
      ...["0.3", "512", "snapkv", "20", "16", "2", "100", "2048", "64", "2", "silent", "/tmp/s"]
        .flatMap((text, i) => [i, text + NUL]),
    ),
    wrong: bytes(
      ...["1e-400", "-1", "magic", "0", "65", "1025", "99999999999", "x", "", " 5", "loud"]
        .flatMap((text, i) => [i, text + NUL]),
    ),
    "not-numbers": bytes(...["nan", "inf", "0x1p-1", "1,5"].flatMap((text) => [0, text + NUL])),
  },
  report: {
    compacted: bytes(1, 2, u32(0, 100, 100, 20), 0, u32(1500, 2500, 3), NUL),
    skipped: bytes(1, 1, u32(1, 100, 100, 100), 1, u32(1, 1, 1), 'a "quoted" \\ \u00e9\n text'),
    long: bytes(1, 1, u32(1, 100, 100, 100), 1, u32(1, 1, 1), '"'.repeat(3000)),
    path: bytes(0, "a/b/c.so", NUL, 20),
  },
};

for (const [target, seeds] of Object.entries(SEEDS)) {
  Deno.mkdirSync(join(FOLDER, target), { recursive: true });
  for (const [name, data] of Object.entries(seeds)) {
    Deno.writeFileSync(join(FOLDER, target, name), data);
  }
}
