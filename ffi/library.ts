/**
 * The native library, opened when first needed.
 *
 * @module
 */
import { ABI_VERSION, type Isa, ISAS, type MethodName, METHODS } from "./enums.ts";
import { LIBRARY_VARIABLE, libraryPaths } from "./library_path.ts";
import { openLibrary } from "./open_library.ts";
import { ChunkKvError } from "./status.ts";
import { symbols } from "./symbols.ts";

/** The functions of libchunkkv. */
export type NativeSymbols = Deno.DynamicLibrary<typeof symbols>["symbols"];

let opened: { library: Deno.DynamicLibrary<typeof symbols>; path: string } | undefined;

/**
 * The functions of libchunkkv; the first call opens it. A failed call can be repeated.
 *
 * @returns The functions, valid for the life of the process.
 * @throws {ChunkKvError} As {@linkcode openLibrary}.
 */
export function native(): NativeSymbols {
  opened ??= openFirst();
  return opened.library.symbols;
}

/**
 * The path that libchunkkv was opened from; opens it if it is not open yet.
 *
 * @returns The path.
 * @throws {ChunkKvError} If it cannot be opened.
 */
export function libraryPath(): string {
  opened ??= openFirst();
  return opened.path;
}

function openFirst(): NonNullable<typeof opened> {
  const { candidates, explicit } = libraryPaths();
  for (const path of candidates) {
    try {
      const library = openLibrary({
        name: "libchunkkv",
        path,
        symbols,
        abi: { symbol: "ckv_abi_version", expected: ABI_VERSION },
      });
      return { library, path };
    } catch (error) {
      const missing = error instanceof ChunkKvError && error.code === "library_not_found";
      if (!missing || explicit) throw error;
    }
  }
  throw new ChunkKvError(
    "library_not_found",
    `Expected libchunkkv at ${candidates.join(" or ") || "no place that is known"} but found no ` +
      `such file: build it with "deno task setup", or set ${LIBRARY_VARIABLE} to its path`,
  );
}

/**
 * Reads a text that the library owns.
 *
 * @param pointer A `const char *`, or null.
 * @returns A copy, or `undefined` for null.
 */
export function readText(pointer: Deno.PointerValue): string | undefined {
  return pointer === null ? undefined : Deno.UnsafePointerView.getCString(pointer);
}

/**
 * The native library's version.
 *
 * @returns Such as `0.1.0`.
 * @throws {ChunkKvError} If the library cannot be opened.
 *
 * @example
 * ```ts
 * import { libraryVersion } from "chunkkv";
 * import { assert } from "@std/assert";
 *
 * assert(/^\d+\.\d+\.\d+/.test(libraryVersion()));
 * ```
 */
export function libraryVersion(): string {
  return readText(native().ckv_version()) ?? "";
}

/**
 * The instruction sets that the library has kernels for and this CPU runs, in rising preference.
 *
 * @returns Names that `new Compressor({ isa })` takes.
 * @throws {ChunkKvError} If the library cannot be opened.
 *
 * @example
 * ```ts
 * import { usableIsas } from "chunkkv";
 * import { assert } from "@std/assert";
 *
 * assert(usableIsas().includes("serial"));
 * ```
 */
export function usableIsas(): Isa[] {
  const { ckv_isa_usable } = native();
  return (Object.keys(ISAS) as Isa[])
    .filter((isa) => ISAS[isa] >= 0 && ckv_isa_usable(ISAS[isa]) === 1);
}

/**
 * The methods by which tokens can be chosen.
 *
 * @returns Names that `methodByName` takes.
 *
 * @example
 * ```ts
 * import { methodNames } from "chunkkv";
 * import { assert } from "@std/assert";
 *
 * assert(methodNames().includes("chunkkv"));
 * ```
 */
export function methodNames(): MethodName[] {
  return Object.keys(METHODS) as MethodName[];
}
