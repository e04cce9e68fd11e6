/**
 * Integers from outside.
 *
 * @module
 */
import { check } from "../../ffi/status.ts";

/** The largest `int32_t`, which slots and token ids are. */
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

/**
 * Throws unless all values are integers in a range; no text is made for those that are.
 *
 * @param name What each is, for the error.
 * @param values The values.
 * @param least The smallest allowed.
 * @param most The largest allowed.
 * @throws {ChunkKvError} `invalid_argument`.
 */
export function checkIntegers(
  name: string,
  values: ArrayLike<number>,
  least: number,
  most = MAX_INT32,
): void {
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (!(Number.isInteger(value) && value >= least && value <= most)) {
      checkInteger(name, value, least, most);
    }
  }
}
