/**
 * What can go wrong, as one error class with a `code`.
 *
 * @module
 */

/** Numbers of `ckv_status` in `chunkkv.h`, by their names there. */
export const STATUS = {
  ok: 0,
  invalid_argument: 1,
  out_of_memory: 2,
  unsupported: 3,
  out_of_bounds: 4,
  numeric: 5,
  busy: 6,
  engine: 7,
  cancelled: 8,
} as const;

/** Codes that come from the native library: the names of `ckv_status`. */
export type StatusCode = Exclude<keyof typeof STATUS, "ok">;

/**
 * Why a call failed.
 *
 * - `invalid_argument`: a value out of its range; the message says which.
 * - `out_of_memory`: an allocation failed.
 * - `unsupported`: valid, but not built in or not possible on this machine.
 * - `out_of_bounds`: a view reaches outside the bytes that it declares.
 * - `numeric`: NaN in queries or keys, or a row of logits that are all -inf.
 * - `busy`: the object is inside another call.
 * - `engine`: an inference engine refused or failed a step.
 * - `cancelled`: the caller asked to stop.
 * - `library_not_found`: no file where the native library should be.
 * - `library_not_loadable`: the file is there, but the system cannot load it.
 * - `symbol_missing`: the library lacks a function.
 * - `abi_mismatch`: the library is of another ABI version than this package.
 * - `permission_denied`: Deno was started without the permission that the call needs.
 * - `disposed`: the object was used after its disposal.
 * - `internal`: a status that this package does not know.
 */
export type ChunkKvErrorCode =
  | StatusCode
  | "library_not_found"
  | "library_not_loadable"
  | "symbol_missing"
  | "abi_mismatch"
  | "permission_denied"
  | "disposed"
  | "internal";

/**
 * The error that this package throws; `code` says what kind, the message what was expected and
 * what was found.
 *
 * @example Acting on the code
 * ```ts
 * import { ChunkKvError, chunkKv } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * try {
 *   chunkKv({ chunkSize: 0 });
 * } catch (error) {
 *   if (!(error instanceof ChunkKvError)) throw error;
 *   assertEquals(error.code, "invalid_argument");
 * }
 * ```
 */
export class ChunkKvError extends Error {
  /** The class's name. */
  override readonly name = "ChunkKvError";

  /** What kind of failure this is. */
  readonly code: ChunkKvErrorCode;

  /**
   * An error of one kind.
   *
   * @param code What kind of failure this is.
   * @param message What was expected and what was found.
   * @param options `cause`: the error underneath, if there is one.
   */
  constructor(code: ChunkKvErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

const CODES = new Map<number, StatusCode>(
  Object.entries(STATUS)
    .filter(([name]) => name !== "ok")
    .map(([name, number]) => [number, name as StatusCode]),
);

/**
 * Throws unless `status` is `CKV_OK`.
 *
 * @param status A `ckv_status`.
 * @param errorText The context's error text, or a function that reads it; only read on failure.
 * @throws {ChunkKvError} With the code that belongs to the status.
 */
export function unwrap(status: number, errorText: string | (() => string)): void {
  if (status === STATUS.ok) return;
  const text = typeof errorText === "function" ? errorText() : errorText;
  const code = CODES.get(status);
  if (code === undefined) {
    throw new ChunkKvError("internal", `Expected a known status but found ${status}: ${text}`);
  }
  throw new ChunkKvError(code, text || `Expected the call to succeed but found ${code}`);
}

/**
 * Throws an `invalid_argument` error unless `condition` holds.
 *
 * @param condition What must be true.
 * @param expected What is allowed, as it reads after "Expected": `chunkSize to be an integer >= 1`.
 * @param found The value that is not.
 * @throws {ChunkKvError} `invalid_argument`: "Expected ... but found ...".
 */
export function check(condition: boolean, expected: string, found: unknown): asserts condition {
  if (condition) return;
  const text = typeof found === "string" ? JSON.stringify(found) : String(found);
  throw new ChunkKvError("invalid_argument", `Expected ${expected} but found ${text}`);
}
