/**
 * The devices that the library can compute on.
 *
 * @module
 */
import { type Device, DEVICES } from "./enums.ts";
import { native } from "./library.ts";
import { check, ChunkKvError, STATUS, unwrap } from "./status.ts";
import { CONTEXT_PARAMS, packStruct, type StructLayout, type StructValues } from "./structs.ts";

const TEXT_BYTES = 512;

type ContextField = typeof CONTEXT_PARAMS extends StructLayout<infer Name> ? Name : never;

/**
 * What a device is.
 *
 * @param device Which kind.
 * @param index Which one of several; 0 for the CPU.
 * @returns Such as "NVIDIA H100 80GB HBM3, 79.2 GiB, compute capability 9.0, ...".
 * @throws {ChunkKvError} `unsupported` if it cannot be used, and why: no libchunkkv_cuda beside
 * libchunkkv, no driver, no device. `invalid_argument` if there are fewer devices.
 *
 * @example
 * ```ts
 * import { describeDevice } from "chunkkv";
 * import { assert } from "@std/assert";
 *
 * assert(describeDevice("cpu").startsWith("CPU, "));
 * ```
 */
export function describeDevice(device: Device, index = 0): string {
  check(
    Object.hasOwn(DEVICES, device),
    `device to be one of ${Object.keys(DEVICES).join(", ")}`,
    device,
  );
  check(Number.isInteger(index) && index >= 0, "index to be an integer of at least 0", index);
  const bytes = new Uint8Array(TEXT_BYTES);
  const status = native().ckv_device_describe(
    DEVICES[device],
    index,
    bytes,
    BigInt(bytes.length),
  );
  const text = new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
  unwrap(status, text);
  return text;
}

/**
 * Makes a native context.
 *
 * @param values Fields of `ckv_context_params`.
 * @param reason Why none can be made, where the device is not to blame.
 * @returns The context; its owner frees it.
 * @throws {ChunkKvError} With what the device says, or `reason`.
 */
export function createContext(
  values: StructValues<ContextField>,
  reason: string,
): Deno.PointerObject {
  const created = new BigUint64Array(1);
  const status = native().ckv_context_create(packStruct(CONTEXT_PARAMS, values), created);
  if (status !== STATUS.ok && values.device === DEVICES.cuda) {
    describeDevice("cuda", Number(values.device_index ?? 0)); // throws where it knows why
  }
  unwrap(status, reason);
  const context = Deno.UnsafePointer.create(created[0] ?? 0n);
  if (context === null) throw new ChunkKvError("internal", "Expected a context but found NULL");
  return context;
}
