/**
 * The cache folder: made on demand, filled by whole files and folders only, one writer at a time.
 *
 * @module
 */
import { dirname, join } from "node:path";

import { exists } from "./paths.ts";

const SCRATCH = ".making-";

/** The cache folder cannot be written to. */
export class CacheError extends Error {
  override name = "CacheError";
}

const USE_ANOTHER_CACHE = "Set CHUNKKV_CACHE to a folder that is";

/**
 * Makes a folder and checks that files can be made in it.
 *
 * @param remedy What to do if not, for the error's message.
 * @throws {CacheError} If not.
 */
export function ensureWritable(folder: string, remedy = USE_ANOTHER_CACHE): void {
  try {
    Deno.mkdirSync(folder, { recursive: true });
    Deno.removeSync(Deno.makeTempFileSync({ dir: folder, prefix: ".probe-" }));
  } catch (cause) {
    const found = cause instanceof Error ? cause.message : String(cause);
    throw new CacheError(
      `Expected the folder ${folder} to be writable but found: ${found}. ${remedy}`,
      { cause },
    );
  }
}

/**
 * Makes `target`, a file or a folder, so that it is there whole or not at all: `make` gets an empty
 * scratch folder on the same disk and returns the path in it that becomes `target`. If another
 * process was faster, its result stays.
 */
export async function makeWhole(
  target: string,
  make: (scratch: string) => Promise<string>,
): Promise<void> {
  const parent = dirname(target);
  ensureWritable(parent);
  const scratch = Deno.makeTempDirSync({ dir: parent, prefix: SCRATCH });
  try {
    const made = await make(scratch);
    try {
      Deno.renameSync(made, target);
    } catch (error) {
      if (!exists(target)) throw error;
    }
  } finally {
    Deno.removeSync(scratch, { recursive: true });
  }
}

/** Removes what a killed {@linkcode makeWhole} left in a folder; for the holder of its lock. */
export function sweep(folder: string): void {
  if (!exists(folder)) return;
  for (const entry of Deno.readDirSync(folder)) {
    if (entry.name.startsWith(SCRATCH)) {
      Deno.removeSync(join(folder, entry.name), { recursive: true });
    }
  }
}

/**
 * Runs `job` while no other process runs one under the same lock file. The system lets go of the
 * lock when a process dies, however it dies.
 *
 * @param folder Where the lock file lies; must exist.
 * @param onWait Called once if another process has the lock.
 */
export async function withLock<T>(
  folder: string,
  job: () => Promise<T>,
  onWait: () => void = () => {},
): Promise<T> {
  using file = Deno.openSync(join(folder, ".lock"), { write: true, create: true });
  const waiting = setTimeout(onWait, 500);
  try {
    await file.lock(true);
  } finally {
    clearTimeout(waiting);
  }
  try {
    return await job();
  } finally {
    file.unlockSync();
  }
}
