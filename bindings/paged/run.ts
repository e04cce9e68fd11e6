/**
 * A compaction done: selections, then moves.
 *
 * @module
 */
import type { Compressor } from "../../ffi/compressor.ts";
import type { Device } from "../../ffi/enums.ts";
import type { Compaction } from "./compaction.ts";

/**
 * Selects and moves.
 *
 * @param compaction What is to be done; the caller ends it.
 * @param compressor Who does it.
 * @throws {ChunkKvError} As its stages; no row has moved then.
 */
export function run(compaction: Compaction, compressor: Compressor<Device>): void {
  try {
    const selected = compaction.selections.map((one) => compressor.select(one));
    compressor.finish(); // what a GPU finds, it finds before a row moves
    for (const move of compaction.plan(selected)) compressor.compact(move);
    compressor.finish(); // blocks are given back when nobody reads them any more
  } catch (error) {
    try {
      compressor.finish(); // what a GPU has found besides is not for the next compaction
    } catch { /* one error is enough */ }
    throw error;
  }
}

/** As {@linkcode run}, on another thread. */
export async function runAsync(
  compaction: Compaction,
  compressor: Compressor<Device>,
): Promise<void> {
  try {
    const selected = [];
    for (const one of compaction.selections) selected.push(await compressor.selectAsync(one));
    if (selected.length > 0) await compressor.finishAsync();
    for (const move of compaction.plan(selected)) await compressor.compactAsync(move);
    await compressor.finishAsync();
  } catch (error) {
    await compressor.finishAsync().catch(() => {});
    throw error;
  }
}
