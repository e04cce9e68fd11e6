/**
 * node-llama-cpp with its prebuilt binary, for Node: a host that loads libllama for itself alone.
 *
 * @module
 */
import { join } from "node:path";

import { ensureWritable, makeWhole, withLock } from "./cache.ts";
import { cacheDir, exists } from "./paths.ts";
import { capture } from "./process.ts";

/**
 * The folder of a version of node-llama-cpp, for 64-bit Linux on x86; npm installs it where it is
 * not there (85 MB), and runs none of its scripts.
 *
 * @param version As on npm: `3.22.1`.
 * @throws {ProcessError} If npm cannot install it.
 */
export async function nodeLlamaCpp(version: string): Promise<string> {
  const target = join(cacheDir(), `node-llama-cpp-${version}`);
  const folder = join(target, "node_modules", "node-llama-cpp");
  if (exists(target)) return folder;
  ensureWritable(cacheDir());
  await withLock(cacheDir(), async () => {
    if (exists(target)) return;
    await makeWhole(target, (scratch) => install(scratch, version));
  }, () => console.error("Waiting for a setup to finish ..."));
  return folder;
}

async function install(scratch: string, version: string): Promise<string> {
  const folder = join(scratch, "packages");
  Deno.mkdirSync(folder);
  Deno.writeTextFileSync(join(folder, "package.json"), '{ "private": true }\n');
  const packages = ["node-llama-cpp", "@node-llama-cpp/linux-x64"];
  await capture([
    "npm",
    "install",
    // The binaries of all other platforms are optional packages.
    ...["--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"],
    ...packages.map((name) => `${name}@${version}`),
  ], { cwd: folder });
  return folder;
}
