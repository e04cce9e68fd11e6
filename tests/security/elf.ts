/**
 * What binutils tell of a shared library.
 *
 * @module
 */
import { join } from "node:path";

import { buildDir, libraryName } from "../../tools/paths.ts";
import { capture } from "../../tools/process.ts";

/** The libraries that users load. */
export const LIBRARIES = ["chunkkv", "chunkkv_llama", "chunkkv_preload"];

/** Where the build has put one. */
export function builtLibrary(name: string): string {
  return join(buildDir(), libraryName(name));
}

/** The names that it offers to, or wants from, other libraries. */
export async function dynamicSymbols(path: string, which: "defined" | "undefined") {
  const lines = (await capture(["nm", "-D", `--${which}-only`, path])).split("\n");
  return lines.map((line) => line.trim().split(" ").at(-1)?.replace(/@.*/, "") ?? "").sort();
}

/** Its program headers and dynamic section, as text. */
export async function headers(path: string): Promise<string> {
  return await capture(["readelf", "--wide", "--program-headers", "--dynamic", path]);
}
