/**
 * llama.cpp's serialised state of a sequence, taken apart and put together row by row. Written apart
 * from the C code that it checks.
 *
 * @module
 */

/** Rows of the keys or values of one layer. */
export interface Rows {
  type: number;
  rowBytes: number;
  /** One per cell. */
  rows: Uint8Array[];
}

/** One cache of a state. */
export interface Cache {
  positions: number[];
  keys: Rows[];
  values: Rows[];
}

/** A state: the global cache first, then that of sliding windows if there is one. */
export interface State {
  sequence: number;
  caches: Cache[];
}

/** Takes a state apart. */
export function parseState(bytes: Uint8Array): State {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const u32 = () => view.getUint32((at += 4) - 4, true);
  if (u32() !== 0xaf143cd8) throw new Error("Expected the magic number of a state");
  const sequence = u32();
  const caches: Cache[] = [];
  while (at < bytes.length) {
    if (u32() !== 1) throw new Error("Expected one stream");
    const cells = u32();
    const positions: number[] = [];
    for (let i = 0; i < cells; i++) {
      positions.push(u32());
      if (u32() !== 1 || u32() !== sequence) throw new Error("Expected cells of the sequence");
    }
    if (u32() !== 0) throw new Error("Expected values that are not transposed");
    const layers = u32();
    const readRows = (): Rows => {
      const type = u32();
      const rowBytes = Number(view.getBigUint64((at += 8) - 8, true));
      const rows = positions.map(() => bytes.slice(at, at += rowBytes));
      return { type, rowBytes, rows };
    };
    const keys = Array.from({ length: layers }, readRows);
    const values = Array.from({ length: layers }, readRows);
    caches.push({ positions, keys, values });
  }
  return { sequence, caches };
}

/** Puts a state together. */
export function buildState({ sequence, caches }: State): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  const u32 = (...values: number[]) => parts.push(new Uint8Array(Uint32Array.from(values).buffer));
  u32(0xaf143cd8, sequence);
  for (const { positions, keys, values } of caches) {
    u32(1, positions.length);
    for (const position of positions) u32(position, 1, sequence);
    u32(0, keys.length);
    for (const { type, rowBytes, rows } of [...keys, ...values]) {
      u32(type, rowBytes, 0);
      parts.push(...rows);
    }
  }
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** A state with its cells in the order of their tokens. */
export function inTokenOrder(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { sequence, caches } = parseState(bytes);
  const sorted = caches.map(({ positions, keys, values }) => {
    const order = positions.map((_, i) => i)
      .sort((a, b) => (positions[a] ?? 0) - (positions[b] ?? 0));
    const sort = (side: Rows[]) =>
      side.map((one) => ({ ...one, rows: order.map((i) => one.rows[i] ?? new Uint8Array()) }));
    return {
      positions: order.map((i) => positions[i] ?? -1),
      keys: sort(keys),
      values: sort(values),
    };
  });
  return buildState({ sequence, caches: sorted });
}

/**
 * A state whose global cache has only the kept rows, each layer its own.
 *
 * @param bytes A whole state whose cells are in the order of their tokens.
 * @param layers For each layer one index set, or one per head.
 */
export function keepRows(
  bytes: Uint8Array,
  layers: readonly (readonly ArrayLike<number>[])[],
): Uint8Array<ArrayBuffer> {
  const state = parseState(bytes);
  const [cache, ...others] = state.caches;
  if (!cache) throw new Error("Expected a cache");
  // A cell counts by the oldest token that a layer or head has in it.
  const count = layers[0]?.[0]?.length ?? 0;
  const oldest = Array.from(
    { length: count },
    (_, i) => Math.min(...layers.flat().map((set) => set[i] ?? -1)),
  );
  const gather = (side: Rows[]) =>
    side.map((rows, layer) => ({ ...rows, rows: gatherRows(rows, layers[layer] ?? []) }));
  const kept: Cache = {
    positions: oldest.map((index) => cache.positions[index] ?? -1),
    keys: gather(cache.keys),
    values: gather(cache.values),
  };
  return buildState({ sequence: state.sequence, caches: [kept, ...others] });
}

function gatherRows({ rows, rowBytes }: Rows, sets: readonly ArrayLike<number>[]): Uint8Array[] {
  const headBytes = rowBytes / sets.length;
  return Array.from({ length: sets[0]?.length ?? 0 }, (_, i) => {
    const row = new Uint8Array(rowBytes);
    sets.forEach((set, head) => {
      const from = rows[set[i] ?? -1];
      if (!from) throw new Error(`Expected a row ${set[i]}`);
      row.set(from.subarray(head * headBytes, (head + 1) * headBytes), head * headBytes);
    });
    return row;
  });
}
