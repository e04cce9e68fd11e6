/**
 * All that a release would hold, in one folder.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { basename, join, relative } from "node:path";

import { exists } from "../paths.ts";
import { explain } from "../process.ts";
import { buildLibraries } from "./libraries.ts";
import { layOutMain, layOutPlatform, pack } from "./npm.ts";
import { type Gap, type Target, TARGETS } from "./targets.ts";
import { makeWheel } from "./wheel.ts";

/** The file with the hashes of all others, as `sha256sum --check` reads it. */
export const SUMS = "SHA256SUMS";

/**
 * Fills `folder`: packages unpacked in `npm/`, archives of them, wheels, and their hashes. What was
 * there before is removed.
 *
 * @param folder Where to.
 * @param report Hears what is done.
 * @returns What is missing by design, and what failed.
 */
export async function layOut(
  folder: string,
  report: (line: string) => void,
): Promise<{ gaps: Gap[]; failed: Gap[] }> {
  if (exists(folder)) Deno.removeSync(folder, { recursive: true });
  Deno.mkdirSync(folder, { recursive: true });
  const gaps: Gap[] = [];
  const failed: Gap[] = [];
  const main = join(folder, "npm", "chunkkv");
  layOutMain(main, TARGETS);
  const packages = [main];
  for (const target of TARGETS) {
    report(target.name);
    try {
      const libraries = await buildLibraries(target);
      gaps.push(...libraries.gaps);
      const platform = join(folder, "npm", target.name);
      layOutPlatform(platform, target, libraries.files);
      packages.push(platform);
      gaps.push(...await layOutWheel(target, libraries.files, folder));
    } catch (error) {
      failed.push({ target: target.name, what: "everything", why: explain(error) });
    }
  }
  await pack(packages, folder);
  Deno.writeTextFileSync(join(folder, SUMS), sums(folder));
  return { gaps, failed };
}

async function layOutWheel(target: Target, libraries: string[], folder: string): Promise<Gap[]> {
  if (typeof target.wheel !== "string") {
    return [{ target: target.name, what: "wheel of the vLLM plugin", why: target.wheel.missing }];
  }
  // The plugin opens these two; the others are for llama.cpp.
  const wanted = libraries.filter((path) => /^(lib)?chunkkv(_cuda)?\.\w+$/.test(basename(path)));
  await makeWheel(target, target.wheel, wanted, folder);
  return [];
}

/** A line for each file in a folder and those below it, sorted by name. */
function sums(folder: string): string {
  return files(folder).map((path) => {
    const hash = createHash("sha256").update(Deno.readFileSync(path)).digest("hex");
    return `${hash}  ${relative(folder, path).replaceAll("\\", "/")}\n`;
  }).join("");
}

/** The paths of all files in a folder and those below it, sorted. */
export function files(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    const path = join(folder, name);
    return isDirectory ? files(path) : [path];
  }).sort();
}
