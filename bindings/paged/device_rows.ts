/**
 * Rows written to slots on a GPU: a compaction from where they lie side by side to one-token blocks.
 *
 * @module
 */
import type { Compressor } from "../../ffi/compressor.ts";
import { rowBytes } from "../../ffi/data.ts";
import { DeviceBuffer } from "../../ffi/device_buffer.ts";
import type { Device } from "../../ffi/enums.ts";
import { Kept } from "../../ffi/kept.ts";
import { type KvView, pagedKv, stridedKv } from "../../ffi/kv_view.ts";
import { ChunkKvError } from "../../ffi/status.ts";
import { after, type LayerPages } from "./pages.ts";
import { free, type PagePlace, type Table } from "./place.ts";

/** Rows of one layer, `[tokens, numKvHeads, headDim]`, in either memory. */
export type Rows = Record<keyof LayerPages, ArrayBufferView | DeviceBuffer>;

/**
 * Writes rows of one layer.
 *
 * @param pages The layer.
 * @param slots Slot of each token; -1 leaves it out.
 * @param rows Its rows, as many as slots.
 * @param on The GPU, and who moves rows there.
 * @throws {ChunkKvError} `unsupported` if blocks do not lie a whole number of tokens apart.
 */
export function writeDeviceRows(
  pages: LayerPages,
  slots: ArrayLike<number>,
  rows: Rows,
  on: { place: PagePlace; compressor: Compressor<Device> },
): void {
  const tokens = Array.from(slots, (_, i) => i).filter((i) => slots[i]! >= 0);
  if (tokens.length === 0) return;
  const { keys, values } = pages;
  const made: (DeviceBuffer | Table)[] = [];
  const kept = on.place.kept(Kept.from([[tokens]]));
  try {
    const table = on.place.table(cells(keys, tokens.map((i) => slots[i]!)));
    made.push(table);
    for (const [view, source] of [[keys, rows.keys], [values, rows.values]] as const) {
      const data = source instanceof DeviceBuffer ? source : upload(source, on.place);
      if (data !== source) made.push(data);
      for (const [from, to] of moves(view, data, slots.length, { table, count: tokens.length })) {
        on.compressor.compact({ keys: from, kept, to: { keys: to } });
      }
    }
    on.compressor.finish();
  } finally {
    free(kept);
    made.forEach(free);
  }
}

function upload(rows: ArrayBufferView, { deviceIndex }: PagePlace): DeviceBuffer {
  return DeviceBuffer.from(rows as ArrayBufferView<ArrayBuffer>, { deviceIndex });
}

/** Slots as numbers of cells, one token each, `strideToken` bytes apart through all blocks. */
function cells(view: KvView, slots: readonly number[]): Int32Array<ArrayBuffer> {
  const { blockSize } = view;
  const perBlock = cellsOfBlock(view);
  return Int32Array.from(
    slots,
    (slot) => Math.floor(slot / blockSize) * perBlock + slot % blockSize,
  );
}

function cellsOfBlock({ strideBlock, strideToken }: KvView): number {
  const cells = strideBlock / strideToken;
  if (!Number.isInteger(cells)) {
    throw new ChunkKvError(
      "unsupported",
      `Expected strideBlock to be a multiple of ${strideToken} bytes, a token's, to write rows on a ` +
        `GPU but found ${strideBlock}`,
    );
  }
  return cells;
}

/** From where to where: all heads at once where they are neighbours in the pages, else one by one. */
function* moves(
  view: KvView,
  data: DeviceBuffer,
  tokens: number,
  { table, count }: { table: Table; count: number },
): Generator<[KvView, KvView]> {
  const { dtype, device, headDim, numKvHeads, strideHead, strideToken } = view;
  const row = rowBytes(dtype, headDim);
  const together = strideToken >= numKvHeads * strideHead;
  const numBlocks = (view.numBlocks - 1) * cellsOfBlock(view) + view.blockSize;
  for (let head = 0; head < (together ? 1 : numKvHeads); head++) {
    const shape = { dtype, device, headDim, numKvHeads: together ? numKvHeads : 1 };
    const strides = { strideHead: row, strideToken: row * numKvHeads };
    const from = stridedKv({
      ...shape,
      ...strides,
      kvLen: tokens,
      data: after(data, head * row),
    });
    const to = pagedKv({
      ...shape,
      data: after(view.data, head * strideHead),
      kvLen: count,
      blockSize: 1,
      numBlocks,
      blockTable: table,
    });
    yield [from, { ...to, strideHead, strideToken, strideBlock: strideToken }];
  }
}
