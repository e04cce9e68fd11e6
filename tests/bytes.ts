/**
 * Comparing memory: where it first differs, not all of it.
 *
 * @module
 */
import { assert } from "@std/assert";

/** Fails at the first byte that differs. */
export function assertSameBytes(
  actual: ArrayBufferView,
  expected: ArrayBufferView,
  what: string,
): void {
  const [found, wanted] = [actual, expected]
    .map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength));
  assert(found && wanted);
  const at = wanted.findIndex((byte, i) => byte !== found[i]);
  assert(
    at < 0 && found.length === wanted.length,
    `${what}: Expected byte ${at} of ${wanted.length} to be ${wanted[at]} but found ${found[at]} ` +
      `of ${found.length}`,
  );
}
