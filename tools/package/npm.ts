/**
 * The npm packages: one with the TypeScript API, and for each platform one with its libraries.
 *
 * @module
 */
import { stripTypeScriptTypes } from "node:module";
import { basename, dirname, join } from "node:path";

import config from "../../deno.json" with { type: "json" };
import { repoRoot } from "../paths.ts";
import { run } from "../process.ts";
import { libraryFolder, type Target } from "./targets.ts";

/** What the main package is made of: TypeScript files and folders of them. */
const SOURCES = ["mod.ts", "ffi", "bindings/integers.ts", "bindings/llama_cpp", "bindings/paged"];

/** What all packages say of themselves. */
const COMMON = { version: config.version, license: config.license, type: "module" };

const DESCRIPTION = "KV-cache compression by semantic chunks (ChunkKV)";

/**
 * Lays out the main package. Each module is there twice: TypeScript, which Deno reads where the
 * package is a plain folder, and takes types from; and JavaScript, because Deno strips no types
 * inside `node_modules`.
 */
export function layOutMain(folder: string, targets: Target[]): void {
  for (const source of SOURCES.flatMap(typeScriptFiles)) {
    const text = Deno.readTextFileSync(join(repoRoot(), source));
    write(join(folder, source), text);
    write(join(folder, asJavaScript(source)), toJavaScript(text));
  }
  copyTexts(folder, ["LICENSE", "README.md"]);
  const { name, version, license, exports } = config;
  writeJson(join(folder, "deno.json"), { name, version, license, exports });
  writeJson(join(folder, "package.json"), {
    name,
    description: DESCRIPTION,
    ...COMMON,
    exports: Object.fromEntries(
      Object.entries(exports).map(([entry, path]) => [
        entry,
        { types: path, default: asJavaScript(path) },
      ]),
    ),
    files: ["mod.*", "ffi/", "bindings/", "deno.json"],
    optionalDependencies: Object.fromEntries(
      targets.map((target) => [packageName(target), version]),
    ),
  });
}

/** Lays out the package with one platform's libraries. */
export function layOutPlatform(folder: string, target: Target, libraries: string[]): void {
  const place = libraryFolder(target);
  Deno.mkdirSync(join(folder, place), { recursive: true });
  for (const path of libraries) Deno.copyFileSync(path, join(folder, place, basename(path)));
  copyTexts(folder, ["LICENSE"]);
  const [os, cpu] = target.name.split("-");
  writeJson(join(folder, "package.json"), {
    name: packageName(target),
    description: `The native libraries of ${config.name} for ${target.name}`,
    ...COMMON,
    os: [os],
    cpu: [cpu],
    ...(target.os === "linux" ? { libc: ["glibc"] } : {}),
    files: ["lib/"],
  });
}

/** Makes archives of packages. */
export async function pack(folders: string[], destination: string): Promise<void> {
  const options = ["--silent", "--ignore-scripts", "--offline", "--pack-destination", destination];
  await run(["npm", "pack", ...options, ...folders]);
}

function packageName(target: Target): string {
  return `${dirname(config.name)}/${target.name}`;
}

function typeScriptFiles(path: string): string[] {
  if (path.endsWith(".ts")) return [path];
  const names = [...Deno.readDirSync(join(repoRoot(), path))].map((entry) => entry.name).sort();
  return names.filter((name) => name.endsWith(".ts")).map((name) => `${path}/${name}`);
}

function asJavaScript(path: string): string {
  return path.replace(/\.ts$/, ".js");
}

/** Types become white space, so that lines and columns stay; imports name the JavaScript files. */
function toJavaScript(text: string): string {
  return stripTypeScriptTypes(text).replaceAll(/(\bfrom "\.[^"\n]+)\.ts"/g, '$1.js"');
}

function copyTexts(folder: string, names: string[]): void {
  for (const name of names) {
    write(join(folder, name), Deno.readTextFileSync(join(repoRoot(), name)));
  }
}

function writeJson(path: string, value: unknown): void {
  write(path, `${JSON.stringify(value, null, 2)}\n`);
}

function write(path: string, text: string): void {
  Deno.mkdirSync(dirname(path), { recursive: true });
  Deno.writeTextFileSync(path, text);
}
