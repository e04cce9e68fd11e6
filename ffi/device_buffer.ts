/**
 * Memory of a GPU, owned by JavaScript.
 *
 * @module
 */
import { createContext } from "./device.ts";
import { COPY_KINDS, DEVICES } from "./enums.ts";
import { native, readText } from "./library.ts";
import { check, ChunkKvError, unwrap } from "./status.ts";

/** Which GPU. */
export interface DeviceOptions {
  /** Number of the GPU. @default {0} */
  deviceIndex?: number | undefined;
}

// One context per device for memory alone: buffers live longer than any Compressor.
const contexts = new Map<number, Deno.PointerObject>();

function contextOf(deviceIndex: number): Deno.PointerObject {
  check(
    Number.isInteger(deviceIndex) && deviceIndex >= 0,
    "deviceIndex to be an integer of at least 0",
    deviceIndex,
  );
  const made = contexts.get(deviceIndex) ?? createContext(
    { device: DEVICES.cuda, device_index: deviceIndex, isa: -1 },
    `Expected a context of CUDA device ${deviceIndex} but found that none can be made`,
  );
  contexts.set(deviceIndex, made);
  return made;
}

function unwrapOn(context: Deno.PointerObject, status: number): void {
  unwrap(status, () => readText(native().ckv_context_error(context)) ?? "");
}

/**
 * Memory of a GPU. Views take it as their `data` and their tables. It owns what it has allocated:
 * declare it with `using`, or dispose it.
 *
 * Copies are in the order of the work that a `Compressor` of the same device has queued. Those from
 * and to this machine's memory are made when the method returns, those inside the GPU are queued.
 *
 * @example Up and down again, where there is a GPU
 * ```ts
 * import { ChunkKvError, DeviceBuffer } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * try {
 *   using buffer = DeviceBuffer.from(Float32Array.of(1, 2, 3));
 *   assertEquals(buffer.downloadInto(new Float32Array(3)), Float32Array.of(1, 2, 3));
 * } catch (error) {
 *   if (!(error instanceof ChunkKvError)) throw error;
 *   assertEquals(error.code, "unsupported"); // and the message says why
 * }
 * ```
 */
export class DeviceBuffer implements Disposable {
  static readonly #registry = new FinalizationRegistry<
    { context: Deno.PointerObject; memory: Deno.PointerObject }
  >(({ context, memory }) => native().ckv_device_free(context, memory));

  /** Bytes of it. */
  readonly byteLength: number;
  /** The GPU that it is on. */
  readonly deviceIndex: number;
  readonly #context: Deno.PointerObject;
  #memory: Deno.PointerObject | null;
  #users = 0;
  #disposed = false;

  /**
   * Allocates; what is in it is undefined.
   *
   * @param byteLength Bytes.
   * @param options Which GPU.
   * @throws {ChunkKvError} `unsupported` if CUDA cannot be used, and why; `out_of_memory`.
   */
  constructor(byteLength: number, options: DeviceOptions = {}) {
    check(
      Number.isSafeInteger(byteLength) && byteLength >= 0,
      "byteLength to be an integer of at least 0",
      byteLength,
    );
    this.byteLength = byteLength;
    this.deviceIndex = options.deviceIndex ?? 0;
    this.#context = contextOf(this.deviceIndex);
    const allocated = new BigUint64Array(1);
    unwrapOn(
      this.#context,
      native().ckv_device_alloc(this.#context, BigInt(byteLength), allocated),
    );
    this.#memory = Deno.UnsafePointer.create(allocated[0] ?? 0n);
    if (this.#memory !== null) {
      const { memory, context } = { memory: this.#memory, context: this.#context };
      DeviceBuffer.#registry.register(this, { context, memory }, this);
    }
  }

  /**
   * Allocates and uploads.
   *
   * @param data What it will hold.
   * @param options Which GPU.
   * @returns A buffer as large as `data`.
   * @throws {ChunkKvError} As the constructor.
   */
  static from(data: ArrayBufferView<ArrayBuffer>, options: DeviceOptions = {}): DeviceBuffer {
    const buffer = new DeviceBuffer(data.byteLength, options);
    try {
      buffer.upload(data);
    } catch (error) {
      buffer[Symbol.dispose]();
      throw error;
    }
    return buffer;
  }

  /** Where it is, for the GPU; it dies with this object. */
  get pointer(): Deno.PointerObject {
    if (this.#disposed || this.#memory === null) {
      throw new ChunkKvError("disposed", "Expected a live DeviceBuffer but found a disposed one");
    }
    return this.#memory;
  }

  /**
   * Copies from this machine's memory.
   *
   * @param data What to copy.
   * @param byteOffset Where in the buffer it goes.
   * @throws {ChunkKvError} `out_of_bounds` if it does not fit; `disposed`.
   */
  upload(data: ArrayBufferView<ArrayBuffer>, byteOffset = 0): void {
    this.#copy(data, byteOffset, COPY_KINDS.to_device);
  }

  /**
   * Copies all of it to this machine's memory.
   *
   * @returns Its bytes.
   * @throws {ChunkKvError} `disposed`.
   */
  download(): Uint8Array<ArrayBuffer> {
    return this.downloadInto(new Uint8Array(this.byteLength));
  }

  /**
   * Copies to this machine's memory.
   *
   * @typeParam View Type of the array.
   * @param target As much as it holds is copied.
   * @param byteOffset From where in the buffer.
   * @returns `target`.
   * @throws {ChunkKvError} `out_of_bounds` if the buffer has less; `disposed`.
   */
  downloadInto<View extends ArrayBufferView<ArrayBuffer>>(target: View, byteOffset = 0): View {
    this.#copy(target, byteOffset, COPY_KINDS.to_host);
    return target;
  }

  /**
   * Queues a copy of another buffer of the same GPU, or of a part of this one that lies apart.
   *
   * @param source What to copy.
   * @param byteOffset Where in this buffer it goes.
   * @param begin From where in `source`.
   * @param byteLength How much of it; by default all from `begin` on.
   * @throws {ChunkKvError} `out_of_bounds` if it does not fit; `invalid_argument` if `source` is on
   * another GPU; `disposed`.
   */
  copyFrom(
    source: DeviceBuffer,
    byteOffset = 0,
    begin = 0,
    byteLength: number = source.byteLength - begin,
  ): void {
    check(
      source.deviceIndex === this.deviceIndex,
      `a DeviceBuffer of device ${this.deviceIndex}`,
      source.deviceIndex,
    );
    const from = source.#part(begin, byteLength);
    const to = this.#part(byteOffset, byteLength);
    if (byteLength === 0) return;
    const { on_device } = COPY_KINDS;
    unwrapOn(
      this.#context,
      native().ckv_device_copy(this.#context, to, from, BigInt(byteLength), on_device),
    );
  }

  /**
   * Keeps the memory until {@linkcode DeviceBuffer.release}, for a call that is under way.
   *
   * @returns The address.
   * @throws {ChunkKvError} `disposed`.
   */
  retain(): bigint {
    const address = Deno.UnsafePointer.value(this.pointer);
    this.#users++;
    return address;
  }

  /** Ends a {@linkcode DeviceBuffer.retain}. */
  release(): void {
    this.#users--;
    if (this.#disposed) this[Symbol.dispose]();
  }

  /** Frees the memory when the GPU's queued work is done; doing it again is harmless. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    if (this.#users > 0 || this.#memory === null) return;
    DeviceBuffer.#registry.unregister(this);
    const memory = this.#memory;
    this.#memory = null;
    unwrapOn(this.#context, native().ckv_device_free(this.#context, memory));
  }

  #copy(data: ArrayBufferView<ArrayBuffer>, byteOffset: number, kind: number): void {
    const { byteLength } = data;
    const there = this.#part(byteOffset, byteLength);
    if (byteLength === 0) return;
    const here = Deno.UnsafePointer.of(data);
    const [to, from] = kind === COPY_KINDS.to_device ? [there, here] : [here, there];
    const bytes = BigInt(byteLength);
    unwrapOn(
      this.#context,
      native().ckv_device_copy(this.#context, to, from, bytes, kind),
    );
  }

  /** The address of bytes that are inside. */
  #part(byteOffset: number, byteLength: number): Deno.PointerValue {
    const begin = Deno.UnsafePointer.value(this.pointer);
    if (
      !Number.isSafeInteger(byteOffset) || byteOffset < 0 ||
      !Number.isSafeInteger(byteLength) || byteLength < 0 ||
      byteLength > this.byteLength - byteOffset
    ) {
      throw new ChunkKvError(
        "out_of_bounds",
        `Expected ${byteLength} bytes at ${byteOffset} inside a DeviceBuffer of ` +
          `${this.byteLength} but found that they are not`,
      );
    }
    return Deno.UnsafePointer.create(begin + BigInt(byteOffset));
  }
}
