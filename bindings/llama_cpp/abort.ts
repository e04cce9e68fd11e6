/**
 * Abort signals as typed errors.
 *
 * @module
 */
import { ChunkKvError } from "../../ffi/status.ts";

/**
 * Throws if a signal has been aborted.
 *
 * @param signal The signal.
 * @throws {ChunkKvError} `cancelled`, with the signal's reason as its cause.
 */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (!signal?.aborted) return;
  throw new ChunkKvError("cancelled", "Expected to finish but found the signal aborted", {
    cause: signal.reason,
  });
}
