/**
 * Where the native library may be.
 *
 * @module
 */

/** Name of an environment variable that holds the path of the native library. */
export const LIBRARY_VARIABLE = "CHUNKKV_LIBRARY";

/** Where to look for the library, best place first. */
export interface LibraryPaths {
  /** Paths to try in order: the first that exists is the one. */
  candidates: string[];
  /** Whether the caller named the path with `CHUNKKV_LIBRARY`: then there is no other. */
  explicit: boolean;
}

/**
 * The file name that a shared library has on an operating system.
 *
 * @param base The library's name without prefix and suffix, such as `chunkkv`.
 * @param os The operating system, as in `Deno.build.os`.
 * @returns `libchunkkv.so`, `libchunkkv.dylib` or `chunkkv.dll`.
 *
 * @example Names on three systems
 * ```ts
 * import { libraryFileName } from "chunkkv";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(libraryFileName("chunkkv", "linux"), "libchunkkv.so");
 * assertEquals(libraryFileName("chunkkv", "darwin"), "libchunkkv.dylib");
 * assertEquals(libraryFileName("chunkkv", "windows"), "chunkkv.dll");
 * ```
 */
export function libraryFileName(base: string, os: typeof Deno.build.os = Deno.build.os): string {
  if (os === "windows") return `${base}.dll`;
  return os === "darwin" ? `lib${base}.dylib` : `lib${base}.so`;
}

/**
 * Reads an environment variable; without the permission to read it, it counts as unset.
 *
 * @param name The variable's name.
 * @returns Its value, or `undefined` if it is unset, empty or not readable.
 */
export function tryEnvironment(name: string): string | undefined {
  try {
    return Deno.env.get(name) || undefined;
  } catch (error) {
    // No prompt can have been refused for a variable that is merely optional.
    if (error instanceof Deno.errors.NotCapable) return undefined;
    throw error;
  }
}

/**
 * Where a native library of this package may be: the path in an environment variable alone if that
 * is set; else the build folder, then `lib/<os>-<arch>/` in this package, then in the package of this
 * platform that npm installed beside it.
 *
 * @param base The library's name without prefix and suffix.
 * @param variable The environment variable that overrides everything else.
 * @returns Paths to try in order; none where this package was loaded from a remote address.
 */
export function libraryPaths(base = "chunkkv", variable = LIBRARY_VARIABLE): LibraryPaths {
  const explicit = tryEnvironment(variable);
  if (explicit !== undefined) return { candidates: [explicit], explicit: true };
  const root = new URL("../", import.meta.url);
  if (root.protocol !== "file:") return { candidates: [], explicit: false };
  const file = libraryFileName(base);
  const place = `lib/${Deno.build.os}-${Deno.build.arch}/`;
  const places = ["build/", place];
  // In this scope alone: elsewhere, what lies beside this folder is somebody else's.
  if (root.pathname.endsWith("/@chunkkv/chunkkv/")) places.push(`../${platformName()}/${place}`);
  return {
    candidates: places.map((place) => filePath(new URL(place + file, root))),
    explicit: false,
  };
}

/** What npm calls this platform. */
function platformName(): string {
  const os = Deno.build.os === "windows" ? "win32" : Deno.build.os;
  return `${os}-${Deno.build.arch === "aarch64" ? "arm64" : "x64"}`;
}

function filePath(url: URL): string {
  const path = decodeURIComponent(url.pathname);
  return Deno.build.os === "windows" ? path.slice(1).replaceAll("/", "\\") : path;
}
