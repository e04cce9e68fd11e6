/**
 * Layers in a GPU's memory, as many as it takes to be larger than its caches.
 *
 * @module
 */
import {
  type Compressor,
  DeviceBuffer,
  type Dtype,
  type KvView,
  type QueryView,
  queryView,
  rowBytes,
} from "chunkkv";
import {
  cacheBytes,
  type Case,
  layerCount,
  randomNumbers,
  randomRows,
  toBf16,
  viewsOf,
} from "./workload.ts";

/** Layers that `compress` takes together. */
export const TOGETHER = 8;
/** Several times the second-level cache of a GPU. */
const TURN_BYTES = 256 * 2 ** 20;
/** Short sequences: more layers than this are no use to anybody. */
const MOST_LAYERS = 256;

/** Window queries that take turns. */
const QUERIES = 4;

/** Keys and values of layers that take turns, on a GPU; it owns their memory. */
export class DeviceWorkload implements Disposable {
  /**
   * Queries for any layer. In place the same ones would find their tokens where they have put them,
   * and nothing left to move: calls that compress take them in turn.
   */
  readonly queries: readonly [QueryView, ...QueryView[]];
  /** The layers, {@linkcode TOGETHER} at least. */
  readonly layers: readonly { keys: KvView; values: KvView }[];
  readonly #buffers: DeviceBuffer[] = [];

  /**
   * Random memory for a case.
   *
   * @param what The case.
   * @throws {ChunkKvError} `out_of_memory` if the GPU has less.
   */
  constructor(what: Case) {
    try {
      this.queries = [
        this.#queries(what, 1),
        ...Array.from({ length: QUERIES - 1 }, (_, i) => this.#queries(what, i + 2)),
      ];
      const cache = viewsOf(what, (table) => this.#own(DeviceBuffer.from(table)));
      const first = this.#random(what);
      const view = (buffer: DeviceBuffer) => {
        if (buffer !== first) buffer.copyFrom(first);
        return cache(buffer);
      };
      const other = () => this.#own(new DeviceBuffer(first.byteLength));
      const count = Math.min(Math.max(layerCount(what, TURN_BYTES), TOGETHER), MOST_LAYERS);
      this.layers = Array.from({ length: count }, (_, layer) => ({
        keys: view(layer === 0 ? first : other()),
        values: view(other()),
      }));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Frees the memory; doing it again is harmless. */
  [Symbol.dispose](): void {
    for (const buffer of this.#buffers.splice(0)) buffer[Symbol.dispose]();
  }

  #own(buffer: DeviceBuffer): DeviceBuffer {
    this.#buffers.push(buffer);
    return buffer;
  }

  /** Of the keys' type where that is bf16 or f16, f32 else. */
  #queries({ dtype, batch, heads, window, headDim }: Case, seed: number): QueryView {
    const numbers = randomNumbers(batch * heads * window * headDim, seed);
    const [bits, type]: [ArrayBufferView<ArrayBuffer>, Dtype] = dtype === "bf16"
      ? [toBf16(numbers), dtype]
      : dtype === "f16"
      ? [new Float16Array(numbers), dtype]
      : [numbers, "f32"];
    const data = this.#own(DeviceBuffer.from(bits));
    return queryView({ data, dtype: type, batch, numQHeads: heads, window, headDim });
  }

  /** Some MiB are uploaded, then copied over the rest. */
  #random(what: Case): DeviceBuffer {
    const bytes = cacheBytes(what);
    const row = rowBytes(what.dtype, what.headDim);
    const some = randomRows(
      Math.min(bytes, Math.ceil(4 * 2 ** 20 / row) * row),
      what.dtype,
      what.headDim,
    );
    const buffer = this.#own(new DeviceBuffer(bytes));
    buffer.upload(some);
    for (let filled = some.byteLength; filled < bytes; filled *= 2) {
      buffer.copyFrom(buffer, filled, 0, Math.min(filled, bytes - filled));
    }
    return buffer;
  }
}

/**
 * Measures how fast a GPU copies its own memory.
 *
 * @param compressor A Compressor on it.
 * @param time Times work that is queued, in milliseconds: `queued` of `device_measure.ts`.
 * @param bytes Bytes of a copy.
 * @returns GB/s, bytes read and bytes written together.
 */
export function measureCopy(
  compressor: Compressor<"cuda">,
  time: (compressor: Compressor<"cuda">, call: () => void) => number,
  bytes: number,
): number {
  using from = new DeviceBuffer(bytes);
  using to = new DeviceBuffer(bytes);
  return 2 * bytes / time(compressor, () => to.copyFrom(from)) / 1e6;
}
