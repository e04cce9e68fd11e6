/**
 * Memory that views describe, and the types of what lies in it.
 *
 * @module
 */
import { DeviceBuffer } from "./device_buffer.ts";
import { type Device, type Dtype, DTYPES } from "./enums.ts";
import { check } from "./status.ts";

/**
 * Memory of a view: a typed array, memory of a GPU, or an address with the bytes reachable there.
 * The caller keeps what lies behind an address alive and in place while a view of it is in use.
 */
export type KvData =
  | Float32Array<ArrayBuffer>
  | Float16Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | DeviceBuffer
  | NativeMemory;

/** An address with the bytes reachable there. */
export interface NativeMemory {
  /** Where the memory begins. */
  readonly pointer: Deno.PointerObject;
  /** Bytes reachable at `pointer`. */
  readonly byteLength: number;
}

/** Memory, and the type of what lies in it. */
export interface DataOptions {
  /** The memory. A `Uint8Array`, a `DeviceBuffer` and an address may hold any element type. */
  data: KvData;
  /**
   * Element type. A `Float32Array` is `f32` and a `Float16Array` is `f16`; all else needs it said.
   */
  dtype?: Dtype | undefined;
  /** Where the data lies. @default {"cuda" for a DeviceBuffer, else "cpu"} */
  device?: Device | undefined;
}

/** Elements that are stored together, and their bytes. */
const BLOCKS: Record<Dtype, { elements: number; bytes: number }> = {
  f32: { elements: 1, bytes: 4 },
  f16: { elements: 1, bytes: 2 },
  bf16: { elements: 1, bytes: 2 },
  q8_0: { elements: 32, bytes: 34 },
  q4_0: { elements: 32, bytes: 18 },
  f8_e4m3: { elements: 1, bytes: 1 },
};

/**
 * Bytes of one row.
 *
 * @param dtype Element type.
 * @param elements Elements of the row.
 * @returns Its bytes.
 * @throws {ChunkKvError} `invalid_argument` if `elements` is not a whole number of blocks.
 *
 * @example
 * ```ts
 * import { rowBytes } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(rowBytes("q8_0", 64), 68);
 * ```
 */
export function rowBytes(dtype: Dtype, elements: number): number {
  check(
    Object.hasOwn(DTYPES, dtype),
    `dtype to be one of ${Object.keys(DTYPES).join(", ")}`,
    dtype,
  );
  const block = BLOCKS[dtype];
  check(
    Number.isInteger(elements) && elements > 0 && elements % block.elements === 0,
    `headDim to be a positive multiple of ${block.elements} for ${dtype}`,
    elements,
  );
  return elements / block.elements * block.bytes;
}

/**
 * Where some memory lies.
 *
 * @param options The memory, and its device where the memory does not tell it.
 * @returns The device.
 * @throws {ChunkKvError} `invalid_argument` if that contradicts the memory.
 */
export function deviceOf({ data, device }: DataOptions): Device {
  if (data instanceof DeviceBuffer || ArrayBuffer.isView(data)) {
    const own = data instanceof DeviceBuffer ? "cuda" : "cpu";
    check((device ?? own) === own, `device to be ${own} for a ${data.constructor.name}`, device);
    return own;
  }
  return device ?? "cpu";
}

/**
 * The element type of some memory.
 *
 * @param options The memory, and its type where the memory does not tell it.
 * @returns The type.
 * @throws {ChunkKvError} `invalid_argument` if it is not told, or contradicts the memory.
 */
export function dtypeOf({ data, dtype }: DataOptions): Dtype {
  if (data instanceof Float32Array || data instanceof Float16Array) {
    const own = data instanceof Float32Array ? "f32" : "f16";
    check((dtype ?? own) === own, `dtype to be ${own} for a ${data.constructor.name}`, dtype);
    return own;
  }
  check(dtype !== undefined, "dtype, which this kind of data does not tell,", "none");
  if (data instanceof Uint16Array) {
    check(dtype === "f16" || dtype === "bf16", "dtype to be f16 or bf16 for a Uint16Array", dtype);
  }
  return dtype;
}
