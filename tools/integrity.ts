/**
 * Subresource-integrity strings, as package registries state them.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { Buffer } from "node:buffer";

/** A downloaded file is not the one that was expected. */
export class IntegrityError extends Error {
  override name = "IntegrityError";
}

/**
 * Compares a file with its integrity string.
 *
 * @param path The file.
 * @param expected Such as `sha512-` and the digest in base64.
 * @throws {IntegrityError} If they differ.
 */
export async function verifyIntegrity(path: string, expected: string): Promise<void> {
  const hash = createHash("sha512");
  using file = await Deno.open(path);
  const block = Buffer.alloc(1 << 20);
  for (let size; (size = await file.read(block)) !== null;) hash.update(block.subarray(0, size));
  const found = `sha512-${hash.digest("base64")}`;
  if (found !== expected) {
    throw new IntegrityError(`Expected ${path} to have ${expected} but found ${found}`);
  }
}
