/**
 * Where the pages of a cache lie, and how tables and indices get to the library there.
 *
 * @module
 */
import type { KvData } from "../../ffi/data.ts";
import { DeviceBuffer } from "../../ffi/device_buffer.ts";
import { DeviceKept } from "../../ffi/device_results.ts";
import { type Device, DEVICES } from "../../ffi/enums.ts";
import type { Kept } from "../../ffi/kept.ts";
import type { AnyKept } from "../../ffi/place.ts";
import { check } from "../../ffi/status.ts";

/** Int32 numbers where the library reads them. */
export type Table = Int32Array<ArrayBuffer> | DeviceBuffer;

/** This machine's memory, or a GPU's. */
export interface PagePlace {
  /** The device. */
  readonly device: Device;
  /** Which GPU; 0 on the CPU. */
  readonly deviceIndex: number;
  /** Memory of zeros. Whoever asked lets go of it by `free`. */
  zeros(byteLength: number): KvData;
  /** A block table or lengths for the library; `free` lets go of them. */
  table(numbers: Int32Array<ArrayBuffer>): Table;
  /** Indices for the library; `free` lets go of them. */
  kept(kept: Kept): AnyKept;
  /** What the library chose, here; the original is let go of. */
  chosen(kept: AnyKept): Kept;
}

/** Lets go of what a place has made; doing it again is harmless. */
export function free(made: KvData | Table | AnyKept): void {
  if (made instanceof DeviceBuffer || made instanceof DeviceKept) made[Symbol.dispose]();
}

const HOST: PagePlace = {
  device: "cpu",
  deviceIndex: 0,
  zeros: (byteLength) => new Uint8Array(byteLength),
  table: (numbers) => numbers,
  kept: (kept) => kept,
  chosen: (kept) => kept as Kept,
};

// As many at a time: a pool may be larger than this machine's memory.
const ZEROS = 1 << 26;

function onDevice(deviceIndex: number): PagePlace {
  const options = { deviceIndex };
  return {
    device: "cuda",
    deviceIndex,
    zeros(byteLength) {
      const buffer = new DeviceBuffer(byteLength, options);
      const zeros = new Uint8Array(Math.min(byteLength, ZEROS));
      for (let at = 0; at < byteLength; at += ZEROS) {
        buffer.upload(zeros.subarray(0, Math.min(ZEROS, byteLength - at)), at);
      }
      return buffer;
    },
    table: (numbers) => DeviceBuffer.from(numbers, options),
    kept: (kept) => DeviceKept.from(kept, options),
    chosen(kept) {
      if (!(kept instanceof DeviceKept)) return kept;
      using found = kept;
      return found.download();
    },
  };
}

/**
 * The place of a device.
 *
 * @param device Which kind.
 * @param deviceIndex Which GPU.
 * @returns Its place.
 * @throws {ChunkKvError} `invalid_argument` if there is no such kind.
 */
export function placeOf(device: Device, deviceIndex: number): PagePlace {
  check(
    Object.hasOwn(DEVICES, device),
    `device to be one of ${Object.keys(DEVICES).join(", ")}`,
    device,
  );
  return device === "cuda" ? onDevice(deviceIndex) : HOST;
}
