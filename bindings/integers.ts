/**
 * Integers from outside: what C takes as `int32_t` would throw or wrap there.
 *
 * @module
 */
import { check } from "../ffi/status.ts";

/** The largest `int32_t`. */
export const MAX_INT32 = 2 ** 31 - 1;

/**
 * Throws unless a value is an integer in a range.
 *
 * @param name What it is, for the error.
 * @param value The value.
 * @param least The smallest allowed.
 * @param most The largest allowed.
 * @throws {ChunkKvError} `invalid_argument`.
 */
export function checkInteger(name: string, value: number, least: number, most = MAX_INT32): void {
  check(
    Number.isInteger(value) && value >= least && value <= most,
    `${name} to be an integer from ${least} to ${most}`,
    value,
  );
}
