/**
 * The only caller of `Deno.dlopen`: handshake first, then the full table.
 *
 * @module
 */
import { ChunkKvError } from "./status.ts";

/** What to open, and which ABI it must have. */
export interface OpenLibraryOptions<Symbols extends Deno.ForeignLibraryInterface> {
  /** What the library is called in error messages, such as `libchunkkv`. */
  name: string;
  /** Path of the shared object, or a bare file name that the system's loader searches for. */
  path: string;
  /** The whole symbol table. */
  symbols: Symbols;
  /** A `uint32_t (void)` function that returns the ABI version, and the version expected. */
  abi: { symbol: string; expected: number };
}

/**
 * Opens a native library in two steps: first only its ABI-version function, whose answer must be
 * the expected one, then every symbol of the table. So a library of another version is reported as
 * such and not as some missing symbol, and none of its other functions is ever called.
 *
 * Nothing is opened at import time; the caller owns the result and closes it.
 *
 * @typeParam Symbols The symbol table's type.
 * @param options What to open, and which ABI it must have.
 * @returns The open library.
 * @throws {ChunkKvError} `library_not_found`, `library_not_loadable`, `symbol_missing`,
 * `abi_mismatch` or `permission_denied`, each with what Deno said as its `cause`, where it said
 * anything.
 */
export function openLibrary<const Symbols extends Deno.ForeignLibraryInterface>(
  options: OpenLibraryOptions<Symbols>,
): Deno.DynamicLibrary<Symbols> {
  const { name, path, symbols, abi } = options;
  const probe = open(name, path, { [abi.symbol]: { parameters: [], result: "u32" } } as const);
  try {
    const abiVersion = probe.symbols[abi.symbol] as () => number;
    const found = abiVersion();
    if (found !== abi.expected) {
      throw new ChunkKvError(
        "abi_mismatch",
        `Expected ${name} at ${path} to have ABI version ${abi.expected} but found ${found}: ` +
          `build or install the library that belongs to this package`,
      );
    }
    return open(name, path, symbols);
  } finally {
    probe.close();
  }
}

function open<const Symbols extends Deno.ForeignLibraryInterface>(
  name: string,
  path: string,
  symbols: Symbols,
): Deno.DynamicLibrary<Symbols> {
  try {
    return Deno.dlopen(path, symbols);
  } catch (cause) {
    throw explain(name, path, cause);
  }
}

function explain(name: string, path: string, cause: unknown): ChunkKvError {
  const said = cause instanceof Error ? cause.message : String(cause);
  // Deno 1 and 2 name a missing permission differently; only Deno 2's class is in its types.
  if (cause instanceof Deno.errors.NotCapable || cause instanceof Deno.errors.PermissionDenied) {
    return new ChunkKvError(
      "permission_denied",
      `Expected permission to load ${name} at ${path} but found none: run Deno with --allow-ffi`,
      { cause },
    );
  }
  const symbol = /Failed to register symbol ([^:]+)/.exec(said)?.[1];
  if (symbol !== undefined) {
    return new ChunkKvError(
      "symbol_missing",
      `Expected ${name} at ${path} to export ${symbol} but found no such function`,
      { cause },
    );
  }
  if (isMissing(path, said)) {
    return new ChunkKvError(
      "library_not_found",
      `Expected ${name} at ${path} but found no such file`,
      { cause },
    );
  }
  return new ChunkKvError(
    "library_not_loadable",
    `Expected ${path} to be a loadable ${name} but found: ${said}`,
    { cause },
  );
}

/** Whether the file itself is missing, rather than a library that it depends on. */
function isMissing(path: string, said: string): boolean {
  if (/[/\\]/.test(path)) {
    try {
      Deno.statSync(path);
      return false;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return true;
    }
  }
  // A bare name, or no permission to look: all there is is the loader's own text.
  return said.includes(`${path}: cannot open shared object file`) ||
    /no such file|could not be found/i.test(said);
}
