/**
 * Integers from outside.
 *
 * @module
 */
import { check } from "../../ffi/status.ts";
import { checkInteger, MAX_INT32 } from "../integers.ts";

export { checkInteger, MAX_INT32 };

/**
 * The number of a sequence. C knows how many there are; here it must only get there whole.
 *
 * @param value The number.
 * @returns It.
 * @throws {ChunkKvError} `invalid_argument`.
 */
export function checkSequence(value: number): number {
  check(
    Number.isInteger(value) && Math.abs(value) <= MAX_INT32,
    "sequence to be the number of one",
    value,
  );
  return value;
}
