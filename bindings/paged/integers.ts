/**
 * Many integers from outside at once.
 *
 * @module
 */
import { checkInteger, MAX_INT32 } from "../integers.ts";

export { checkInteger, MAX_INT32 };

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
