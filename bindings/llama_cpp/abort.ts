/**
 * Abort signals, and calls that collide, as typed errors.
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

/**
 * Runs one call that an abort stops. The signal knows of it only meanwhile.
 *
 * @param signal The signal.
 * @param cancel Asks the call to stop; must not throw.
 * @param call The call.
 * @returns What it returns.
 */
export async function abortable<T>(
  signal: AbortSignal | undefined,
  cancel: () => void,
  call: () => Promise<T>,
): Promise<T> {
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    return await call();
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
}

/** The error for a second call while one is running. */
export function busy(): ChunkKvError {
  return new ChunkKvError(
    "busy",
    "Expected one call at a time on a context but found another one running",
  );
}
