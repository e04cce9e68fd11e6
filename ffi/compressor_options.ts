/**
 * What a `Compressor` is made of.
 *
 * @module
 */
import { createContext } from "./device.ts";
import { type Device, DEVICES, type Isa, ISAS } from "./enums.ts";
import { usableIsas } from "./library.ts";
import { check, ChunkKvError } from "./status.ts";

/** What a `Compressor` computes with. */
export interface CompressorOptions<D extends Device = "cpu"> {
  /** Where the data lies and the work is done. @default {"cpu"} */
  device?: D;
  /** Which GPU. @default {0} */
  deviceIndex?: number;
  /** Threads, the calling one included; 0: one per core that this process may use. @default {0} */
  threads?: number;
  /** Instruction set of the kernels, one of `usableIsas()`. @default {"best"} */
  isa?: Isa;
}

/**
 * Makes the native context.
 *
 * @typeParam D The device.
 * @param options What it computes with.
 * @returns The context; its owner frees it.
 * @throws {ChunkKvError} `unsupported` or `invalid_argument`, and why.
 */
export function openContext<D extends Device>(
  options: CompressorOptions<D>,
): Deno.PointerObject {
  const { device = "cpu", deviceIndex = 0, threads = 0, isa = "best" } = options;
  check(
    Object.hasOwn(DEVICES, device),
    `device to be one of ${Object.keys(DEVICES).join(", ")}`,
    device,
  );
  check(
    Number.isInteger(deviceIndex) && deviceIndex >= 0 && (device === "cuda" || deviceIndex === 0),
    "deviceIndex to be the number of a GPU, and 0 on the CPU",
    deviceIndex,
  );
  check(Object.hasOwn(ISAS, isa), `isa to be one of ${Object.keys(ISAS).join(", ")}`, isa);
  check(
    Number.isInteger(threads) && threads >= 0,
    "threads to be an integer of at least 0",
    threads,
  );
  const usable = usableIsas();
  if (isa !== "best" && !usable.includes(isa)) {
    throw new ChunkKvError(
      "unsupported",
      `Expected isa to be one that this CPU runs (${usable.join(", ")}) but found ${isa}`,
    );
  }
  return createContext(
    {
      num_threads: threads,
      isa: ISAS[isa],
      device: DEVICES[device],
      device_index: deviceIndex,
    },
    `Expected a context of ${threads} threads but found that none can be made`,
  );
}
