/**
 * The memory of a cache: of each layer one set of pages for keys and one for values.
 *
 * @module
 */
import { type KvData, rowBytes } from "../../ffi/data.ts";
import { DeviceBuffer } from "../../ffi/device_buffer.ts";
import type { Device, Dtype } from "../../ffi/enums.ts";
import { type KvView, pagedKv } from "../../ffi/kv_view.ts";
import { check } from "../../ffi/status.ts";
import { checkInteger, MAX_INT32 } from "./integers.ts";
import { free, type PagePlace, placeOf } from "./place.ts";

/**
 * How the rows of a block lie.
 *
 * - `nhd`: `[numBlocks, blockSize, numKvHeads, headDim]`, keys and values apart
 * - `hnd`: `[numBlocks, numKvHeads, blockSize, headDim]`, keys and values apart
 * - `fused`: `[numBlocks, numKvHeads, blockSize, 2 * headDim]`, the key before its value
 */
export type PageLayout = "nhd" | "hnd" | "fused";

/** Memory of one layer that the caller owns. */
export interface LayerMemory {
  /** Pages of keys; for `fused` of keys and values. */
  keys: KvData;
  /** Pages of values; none for `fused`. */
  values?: KvData | undefined;
  /**
   * Bytes from one block to the next, of keys and of values.
   *
   * @default {the bytes of a block}
   */
  strideBlock?: number | undefined;
}

/** Sizes and memory of a cache. */
export interface PageOptions {
  /** Layers. One block table serves all. */
  numLayers: number;
  /** Key-value heads. */
  numKvHeads: number;
  /** Elements of a row; a multiple of 32 for `q8_0` and `q4_0`. */
  headDim: number;
  /** Blocks of each layer. */
  numBlocks: number;
  /** Tokens of a block. @default {16} */
  blockSize?: number | undefined;
  /** Element type of keys and values. @default {"f16"} */
  dtype?: Dtype | undefined;
  /** How the rows of a block lie. @default {"nhd"} */
  layout?: PageLayout | undefined;
  /** Where keys and values lie and are compacted. @default {"cpu"} */
  device?: Device | undefined;
  /** Which GPU. @default {0} */
  deviceIndex?: number | undefined;
  /**
   * Memory of each layer that the caller owns and keeps alive, on that device; used where it lies.
   *
   * @default {memory of the cache's own, zeros}
   */
  memory?: readonly LayerMemory[] | undefined;
}

/** Keys and values of one layer, as views of no sequence. */
export interface LayerPages {
  /** Keys. */
  readonly keys: KvView;
  /** Values. */
  readonly values: KvView;
}

/** Lengths and blocks of sequences. */
export type Tables = Pick<KvView, "batch" | "kvLen" | "kvLens" | "maxBlocks" | "blockTable">;

/** The library's largest row, in elements. */
const MAX_HEAD_DIM = 1024;

/** Memory of all layers. */
export class Pages implements Disposable {
  readonly #layout: PageLayout;
  readonly #own: KvData[] = [];
  /** Where the memory is. */
  readonly place: PagePlace;
  /** Tokens of a block. */
  readonly blockSize: number;
  /** Blocks of each layer. */
  readonly numBlocks: number;
  /** Bytes of one block in all layers, keys and values. */
  readonly blockBytes: number;
  /** The layers. */
  readonly layers: readonly LayerPages[];

  /**
   * @param options Sizes and memory.
   * @throws {ChunkKvError} `invalid_argument` if they do not fit each other; on a GPU as
   * `DeviceBuffer`.
   */
  constructor(options: PageOptions) {
    const { numLayers, numKvHeads, headDim, numBlocks, blockSize = 16, dtype = "f16" } = options;
    const { layout = "nhd", memory, device = "cpu", deviceIndex = 0 } = options;
    checkInteger("numLayers", numLayers, 1);
    checkInteger("numKvHeads", numKvHeads, 1);
    checkInteger("blockSize", blockSize, 1);
    checkInteger("numBlocks", numBlocks, 1, Math.floor(MAX_INT32 / blockSize));
    check(["nhd", "hnd", "fused"].includes(layout), "layout to be nhd, hnd or fused", layout);
    check(
      memory === undefined || memory.length === numLayers,
      `memory of ${numLayers} layers`,
      memory?.length,
    );
    const rows = numKvHeads * blockSize * rowBytes(dtype, headDim);
    this.#layout = layout;
    this.blockSize = blockSize;
    this.numBlocks = numBlocks;
    this.blockBytes = 2 * rows * numLayers;
    this.place = placeOf(device, deviceIndex);
    const shape = { numKvHeads, headDim, numBlocks, blockSize, dtype, device };
    const zeros = () => {
      const made = this.place.zeros(numBlocks * rows * (layout === "fused" ? 2 : 1));
      this.#own.push(made);
      return made;
    };
    try {
      this.layers = Array.from({ length: numLayers }, (_, layer) => {
        const own = memory?.[layer] ??
          { keys: zeros(), ...(layout === "fused" ? {} : { values: zeros() }) };
        return layout === "fused" ? fusedPages(own, shape) : splitPages(own, shape, layout);
      });
      this.checkMemory();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Frees memory of its own on a GPU, when calls that use it have returned. */
  [Symbol.dispose](): void {
    this.#own.forEach(free);
  }

  /**
   * A view of blocks.
   *
   * @param layer Which layer.
   * @param which Keys or values.
   * @param tables The sequences' lengths, and their blocks as `[batch, maxBlocks]`.
   * @throws {ChunkKvError} `invalid_argument` if there is no such layer.
   */
  view(
    layer: number,
    which: keyof LayerPages,
    tables: Tables,
  ): KvView {
    const { batch, kvLen, kvLens, maxBlocks, blockTable } = tables;
    return { ...this.layer(layer)[which], batch, kvLen, kvLens, maxBlocks, blockTable };
  }

  /**
   * What of a layer moves when its rows do: keys and values, or both as one where a value lies right
   * after its key, since longer pieces are copied faster.
   */
  moved(layer: number, tables: Tables): { keys: KvView; values?: KvView | undefined } {
    const keys = this.view(layer, "keys", tables);
    const isOne = this.#layout === "fused" && 2 * keys.headDim <= MAX_HEAD_DIM;
    if (isOne) return { keys: { ...keys, headDim: 2 * keys.headDim } };
    return { keys, values: this.view(layer, "values", tables) };
  }

  /** A layer by its number. */
  layer(layer: number): LayerPages {
    const pages = this.layers[layer];
    check(pages !== undefined, `layer to be 0 to ${this.layers.length - 1}`, layer);
    return pages;
  }

  /** Throws unless all memory is still there, and as large as the blocks need: it may be detached. */
  checkMemory(): void {
    this.layers.forEach((pages, layer) => {
      for (const which of ["keys", "values"] as const) {
        const view = pages[which];
        const least = bytesNeeded(view);
        const { data } = view;
        if (data instanceof DeviceBuffer) this.#checkLive(data, layer);
        check(
          data.byteLength >= least,
          `at least ${least} bytes of ${which} in layer ${layer}`,
          data.byteLength,
        );
        check(
          "pointer" in data || !data.buffer.resizable,
          `memory of layer ${layer} that does not shrink`,
          "a resizable ArrayBuffer",
        );
      }
    });
  }

  #checkLive(buffer: DeviceBuffer, layer: number): void {
    buffer.pointer; // throws if it is disposed
    check(
      buffer.deviceIndex === this.place.deviceIndex,
      `memory of layer ${layer} on GPU ${this.place.deviceIndex}`,
      buffer.deviceIndex,
    );
  }
}

type Shape = Required<Pick<PageOptions, "numKvHeads" | "headDim" | "numBlocks">> & {
  blockSize: number;
  dtype: Dtype;
  device: Device;
};

function emptyView(data: KvData, shape: Shape, layout: "nhd" | "hnd", strideBlock?: number) {
  const blockTable = new Int32Array(0);
  const view = pagedKv({ ...shape, data, layout, strideBlock, blockTable, batch: 0, kvLen: 0 });
  checkStride(view.strideBlock, shape.numKvHeads * shape.blockSize * rowOf(view));
  return view;
}

function splitPages(memory: LayerMemory, shape: Shape, layout: "nhd" | "hnd"): LayerPages {
  const { keys, values, strideBlock } = memory;
  check(values !== undefined, "memory of values", "none");
  return {
    keys: emptyView(keys, shape, layout, strideBlock),
    values: emptyView(values, shape, layout, strideBlock),
  };
}

function fusedPages(memory: LayerMemory, shape: Shape): LayerPages {
  check(memory.values === undefined, "no memory of values beside fused keys", "some");
  const view = emptyView(memory.keys, shape, "hnd");
  const strideToken = 2 * rowOf(view);
  const strideHead = strideToken * shape.blockSize;
  const { strideBlock = strideHead * shape.numKvHeads } = memory;
  checkStride(strideBlock, strideHead * shape.numKvHeads);
  const keys = { ...view, strideToken, strideHead, strideBlock };
  return { keys, values: { ...keys, data: after(memory.keys, rowOf(view)) } };
}

function checkStride(strideBlock: number, blockBytes: number): void {
  checkInteger("strideBlock", strideBlock, blockBytes, Number.MAX_SAFE_INTEGER);
}

function rowOf({ dtype, headDim }: KvView): number {
  return rowBytes(dtype, headDim);
}

function bytesNeeded(view: KvView): number {
  return (view.numBlocks - 1) * view.strideBlock + (view.blockSize - 1) * view.strideToken +
    (view.numKvHeads - 1) * view.strideHead + rowOf(view);
}

/** The memory from `bytes` bytes on; of a GPU's its address, which dies with it. */
export function after(data: KvData, bytes: number): KvData {
  const byteLength = data.byteLength - bytes;
  if (!("pointer" in data)) {
    check(byteLength >= 0, `at least ${bytes} bytes of memory`, data.byteLength);
    return new Uint8Array(data.buffer, data.byteOffset + bytes, byteLength);
  }
  const pointer = Deno.UnsafePointer.offset(data.pointer, bytes);
  check(pointer !== null, "an address after the memory's beginning", "null");
  return { pointer, byteLength };
}
