/**
 * The bridge library, opened when first needed, and owners of what lives in it.
 *
 * @module
 */
import { libraryPaths } from "../../ffi/library_path.ts";
import { openLibrary } from "../../ffi/open_library.ts";
import { ChunkKvError } from "../../ffi/status.ts";
import { symbols } from "./symbols.ts";

/** Name of an environment variable that holds the path of the bridge library. */
export const BRIDGE_VARIABLE = "CHUNKKV_LLAMA_BRIDGE";

/** `CKV_LLAMA_ABI_VERSION` that this module was written for. */
export const BRIDGE_ABI_VERSION = 1;

type Bridge = Deno.DynamicLibrary<typeof symbols>;

let opened: Bridge | undefined;

/**
 * The functions of the bridge; the first call opens it. A failed call can be repeated.
 *
 * @returns The functions, valid for the life of the process.
 * @throws {ChunkKvError} As `openLibrary`.
 */
export function bridge(): Bridge["symbols"] {
  opened ??= openFirst();
  return opened.symbols;
}

function openFirst(): Bridge {
  const { candidates, explicit } = libraryPaths("chunkkv_llama", BRIDGE_VARIABLE);
  for (const path of candidates) {
    try {
      return openLibrary({
        name: "libchunkkv_llama",
        path,
        symbols,
        abi: { symbol: "ckv_llama_abi_version", expected: BRIDGE_ABI_VERSION },
      });
    } catch (error) {
      const missing = error instanceof ChunkKvError && error.code === "library_not_found";
      if (!missing || explicit) throw error;
    }
  }
  throw new ChunkKvError(
    "library_not_found",
    `Expected libchunkkv_llama at ${candidates.join(" or ") || "no place that is known"} but ` +
      `found no such file: build it with "deno task setup", or set ${BRIDGE_VARIABLE} to its path`,
  );
}

/**
 * Reads a text that C owns.
 *
 * @param pointer A `const char *`.
 * @returns A copy; empty for null.
 */
export function readText(pointer: Deno.PointerValue): string {
  return pointer === null ? "" : Deno.UnsafePointerView.getCString(pointer);
}

/**
 * A text as C wants it.
 *
 * @param text The text.
 * @param what What it is, for the error.
 * @returns Its UTF-8 bytes, ended by a zero byte.
 * @throws {ChunkKvError} `invalid_argument` if it has a zero character inside.
 */
export function cString(text: string, what: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) {
    throw new ChunkKvError(
      "invalid_argument",
      `Expected ${what} without a zero character but found one at ${text.indexOf("\0")}`,
    );
  }
  return new TextEncoder().encode(`${text}\0`);
}

/**
 * Gets a text of unknown length.
 *
 * @param read Writes the text into a buffer as far as it fits; returns its whole length in bytes, or
 * a negative number.
 * @param guess Bytes to try first.
 * @returns The text's bytes, or the negative number.
 */
export function fetchBytes(
  read: (buffer: Uint8Array<ArrayBuffer>) => number,
  guess = 256,
): Uint8Array<ArrayBuffer> | number {
  let buffer = new Uint8Array(guess);
  let length = read(buffer);
  if (length > buffer.length) {
    buffer = new Uint8Array(length);
    length = read(buffer);
  }
  return length < 0 ? length : buffer.subarray(0, length);
}

interface Claim {
  pointer: Deno.PointerObject;
  free: (pointer: Deno.PointerObject) => void;
}

// For objects that nobody disposed of.
const abandoned = new FinalizationRegistry<Claim>(({ pointer, free }) => free(pointer));

/**
 * Owns an object in C: guards against use after disposal, and waits with freeing it until calls on
 * other threads are back.
 */
export class Handle {
  readonly #what: string;
  readonly #token = {};
  #claim: Claim | undefined;
  #running = 0;
  #disposed = false;

  /**
   * @param what What it is, for errors.
   * @param pointer The object.
   * @param free Frees it.
   * @throws {ChunkKvError} `out_of_memory` if the pointer is null.
   */
  constructor(
    what: string,
    pointer: Deno.PointerValue,
    free: (pointer: Deno.PointerObject) => void,
  ) {
    if (pointer === null) {
      throw new ChunkKvError("out_of_memory", `Expected memory for ${what} but found none`);
    }
    this.#what = what;
    this.#claim = { pointer, free };
    abandoned.register(this, this.#claim, this.#token);
  }

  /** The object. */
  get pointer(): Deno.PointerObject {
    if (this.#disposed || !this.#claim) {
      throw new ChunkKvError("disposed", `Expected ${this.#what} but found it disposed of`);
    }
    return this.#claim.pointer;
  }

  /** Whether {@linkcode dispose} was called. */
  get isDisposed(): boolean {
    return this.#disposed;
  }

  /** Whether a call runs on another thread. */
  get isRunning(): boolean {
    return this.#running > 0;
  }

  /** Runs a call on another thread; the object lives until it is back. */
  async run<T>(call: (pointer: Deno.PointerObject) => Promise<T>): Promise<T> {
    const pointer = this.pointer;
    this.#running++;
    try {
      return await call(pointer);
    } finally {
      this.#running--;
      if (this.#disposed) this.#free();
    }
  }

  /** Frees the object, at the latest when running calls are back. Doing it again does nothing. */
  dispose(): void {
    this.#disposed = true;
    this.#free();
  }

  #free(): void {
    const claim = this.#claim;
    if (!claim || this.#running > 0) return;
    this.#claim = undefined;
    abandoned.unregister(this.#token);
    claim.free(claim.pointer);
  }
}
