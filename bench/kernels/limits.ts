/**
 * What this machine can do at most, measured by `libchunkkv_limits`.
 *
 * @module
 */
import { type Isa, ISAS, usableIsas } from "chunkkv";
import { libraryPaths } from "../../ffi/library_path.ts";
import { openLibrary } from "../../ffi/open_library.ts";
import type { Packed } from "../../ffi/pack.ts";

const SYMBOLS = {
  ckv_limits_abi_version: { parameters: [], result: "u32" },
  ckv_limits_fma_gflops: { parameters: ["i32", "i32"], result: "f64" },
  ckv_limits_dot_gflops: { parameters: ["i32", "i32"], result: "f64" },
  ckv_limits_read_gbs: { parameters: ["i32", "i64"], result: "f64" },
  ckv_limits_copy_gbs: { parameters: ["i32", "i64"], result: "f64" },
  ckv_limits_runs_seconds: {
    parameters: ["i32", "buffer", "i32", "buffer", "f64"],
    result: "f64",
  },
} as const;

const ABI_VERSION = 2;
/** Memory that is read and copied: several times a last-level cache. */
const BYTES = 256 * 2 ** 20;

/** Peaks of the machine with a number of threads. */
export interface Limits {
  /** GB/s of reading memory. */
  read_gb_s: number;
  /** GB/s of copying memory, bytes read and bytes written together. */
  copy_gb_s: number;
  /** GFLOP/s of f32 fused multiply-adds. */
  fma_gflop_s: number;
  /** GFLOP/s of bf16 dot products; 0 where the instruction set has none. */
  dot_gflop_s: number;
}

/**
 * Measures the limits, each the best of several runs.
 *
 * @param threads Threads that share the work.
 * @param isa The instruction set in use; for the serial reference the best one counts.
 * @throws {ChunkKvError} If the library is not built.
 */
export function measureLimits(threads: number, isa: Isa): Limits {
  using library = openLimits();
  const wide = ISAS[isa === "serial" ? usableIsas().at(-1) ?? isa : isa];
  const { symbols } = library;
  const limits = {
    read_gb_s: symbols.ckv_limits_read_gbs(threads, BigInt(BYTES)),
    copy_gb_s: symbols.ckv_limits_copy_gbs(threads, BigInt(BYTES)),
    fma_gflop_s: symbols.ckv_limits_fma_gflops(threads, wide),
    dot_gflop_s: symbols.ckv_limits_dot_gflops(threads, wide),
  };
  const missing = Object.entries(limits).find(([, value]) => value < 0);
  if (missing) throw new Error(`Expected memory to measure ${missing[0]} but found none`);
  return limits;
}

/**
 * Times the plainest copy of the very rows that compaction moves, from a list made before.
 *
 * @param threads Threads that share the work.
 * @param views Packed views of all layers, keys and values in turn.
 * @param kept The packed kept indices.
 * @param seconds About how long each of three loops is repeated.
 * @returns Milliseconds of the shortest run, keys and values of one layer.
 * @throws {ChunkKvError} If the library is not built.
 */
export function measureRuns(
  threads: number,
  views: Packed[],
  kept: Packed,
  seconds: number,
): number {
  using library = openLimits();
  const size = views[0]?.byteLength ?? 0;
  const joined = new Uint8Array(size * views.length);
  views.forEach((view, i) => joined.set(view, i * size));
  const { ckv_limits_runs_seconds } = library.symbols;
  const found = ckv_limits_runs_seconds(threads, joined, views.length, kept, seconds);
  if (found < 0) throw new Error("Expected memory for a list of runs but found none");
  return found * 1000;
}

function openLimits() {
  const [path = "libchunkkv_limits"] = libraryPaths("chunkkv_limits", "CHUNKKV_LIMITS").candidates;
  const library = openLibrary({
    name: "libchunkkv_limits",
    path,
    symbols: SYMBOLS,
    abi: { symbol: "ckv_limits_abi_version", expected: ABI_VERSION },
  });
  return { symbols: library.symbols, [Symbol.dispose]: () => library.close() };
}

/** The higher of two measurements: the machine can do both. */
export function higher(a: Limits, b: Limits): Limits {
  return {
    read_gb_s: Math.max(a.read_gb_s, b.read_gb_s),
    copy_gb_s: Math.max(a.copy_gb_s, b.copy_gb_s),
    fma_gflop_s: Math.max(a.fma_gflop_s, b.fma_gflop_s),
    dot_gflop_s: Math.max(a.dot_gflop_s, b.dot_gflop_s),
  };
}
