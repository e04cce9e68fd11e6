/**
 * What is taken from the llama.cpp release that belongs to the prebuilt libraries: its headers, and
 * the git bundle with its whole source. Both come inside the npm package node-llama-cpp.
 *
 * @module
 */
import { join } from "node:path";
import process from "node:process";

import { makeWhole } from "./cache.ts";
import { verifyIntegrity } from "./integrity.ts";
import { exists, llamaReleaseDir } from "./paths.ts";
import { capture, which } from "./process.ts";
import type { Step } from "./steps.ts";

/** The npm package, pinned by the digest of its tarball. */
export const PACKAGE = {
  name: "node-llama-cpp@3.22.1",
  integrity:
    "sha512-bltIipuWmc123H7tMIgDGKSsSrhmhlQYeVUC48XTjVW7XGJJiJJyCdlTMzQ/LiWoPkGDpcL4FviDpgw7qfTiDw==",
} as const;

/** The folder with the headers and the bundle. */
export const llamaRelease: Step = {
  title: "Headers of llama.cpp (npm, 36 MB)",
  otherwise:
    "name a folder that has llama.h in CHUNKKV_LLAMA_INCLUDE, and the release that it is " +
    "from in CHUNKKV_LLAMA_VERSION",
  isDone: () => Boolean(process.env["CHUNKKV_LLAMA_INCLUDE"]) || exists(llamaReleaseDir()),
  run: () => unpackRelease(llamaReleaseDir(), packFromNpm),
};

/**
 * Fills `target`: `include/` with all public headers, and `llama.cpp.bundle`.
 *
 * @param target The folder to make.
 * @param download Puts the package's tarball into the folder it is given and returns its path.
 * @throws {IntegrityError} If the tarball is another than the pinned one; nothing is left then.
 */
export async function unpackRelease(
  target: string,
  download: (folder: string) => Promise<string>,
): Promise<void> {
  await makeWhole(target, async (scratch) => {
    const tarball = await download(scratch);
    await verifyIntegrity(tarball, PACKAGE.integrity);
    const packed = "package/llama/gitRelease.bundle";
    await capture(["tar", "-xzf", tarball, packed], { cwd: scratch });

    const release = join(scratch, "release");
    const bundle = join(release, "llama.cpp.bundle");
    const include = join(release, "include");
    Deno.mkdirSync(include, { recursive: true });
    Deno.renameSync(join(scratch, packed), bundle);
    await extractHeaders(bundle, scratch, include);
    return release;
  });
}

/** Copies the headers of llama.cpp and ggml out of a git bundle. */
async function extractHeaders(bundle: string, scratch: string, include: string): Promise<void> {
  if (!which("git")) throw new Error("Expected git in PATH but found none");
  const repository = join(scratch, "repository");
  await capture(["git", "clone", "--quiet", "--bare", bundle, repository]);
  const git = ["git", "--git-dir", repository];
  const folders = ["include/", "ggml/include/"];
  const listed = await capture([...git, "ls-tree", "--name-only", "HEAD", ...folders]);
  for (const path of listed.split("\n").filter((name) => name.endsWith(".h"))) {
    const text = await capture([...git, "show", `HEAD:${path}`]);
    Deno.writeTextFileSync(join(include, path.slice(path.lastIndexOf("/") + 1)), `${text}\n`);
  }
}

/** Downloads the tarball: with npm, or where there is no Node with the npm that deno can run. */
async function packFromNpm(folder: string): Promise<string> {
  const npm = which("npm");
  const permissions = ["read", "write", "env", "net", "sys", "run"].map((name) =>
    `--allow-${name}`
  );
  const command = npm
    ? [npm]
    : [Deno.execPath(), "run", "--quiet", "--no-config", ...permissions, "npm:npm@10.9.4"];
  const options = ["pack", "--loglevel", "error", "--ignore-scripts", PACKAGE.name];
  const printed = await capture([...command, ...options], { cwd: folder });
  const name = printed.split("\n").at(-1) ?? "";
  return join(folder, name);
}
