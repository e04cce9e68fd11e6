/**
 * What a release would hold: laid out, installed in a folder elsewhere, and used from there.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { basename, join } from "node:path";
import process from "node:process";

import { enginePath } from "../../bindings/llama_cpp/engine_path.ts";
import config from "../../deno.json" with { type: "json" };
import { files, layOut, SUMS } from "../../tools/package/layout.ts";
import { libraryFolder, type Target, TARGETS } from "../../tools/package/targets.ts";
import { repoRoot, venvPython } from "../../tools/paths.ts";
import { capture, run } from "../../tools/process.ts";
import { withFolder } from "../tools/scratch.ts";
import { binaryKind, newestGlibc } from "./binary.ts";

const { version } = config;
const FORMATS = { linux: "ELF", darwin: "MachO", windows: "PE" };
const here = TARGETS.find(({ name }) => name === `${process.platform}-${process.arch}`);

/** The names of the files in an archive that npm has made. */
async function listArchive(path: string): Promise<string[]> {
  const names = await capture(["tar", "-tzf", path]);
  return names.split("\n").map((name) => name.replace(/^package\//, "")).sort();
}

async function listWheel(path: string): Promise<string[]> {
  const code = "import sys, zipfile; print(*zipfile.ZipFile(sys.argv[1]).namelist(), sep='\\n')";
  return (await capture([venvPython() ?? "python3", "-c", code, path])).split("\n").sort();
}

function archive(dist: string, name: string): string {
  return join(dist, `chunkkv-${name}-${version}.tgz`);
}

/** The libraries that a package holds for its platform, but for one that needs nvcc. */
function libraryNames({ os }: Target): string[] {
  if (os === "windows") return ["chunkkv.dll", "chunkkv_llama.dll"];
  const ending = os === "darwin" ? "dylib" : "so";
  return ["", "_llama", "_preload"].map((part) => `libchunkkv${part}.${ending}`);
}

function withoutCuda(names: string[]): string[] {
  return names.filter((name) => !name.endsWith("libchunkkv_cuda.so"));
}

async function checkLists(dist: string): Promise<void> {
  const main = await listArchive(archive(dist, "chunkkv"));
  const texts = ["LICENSE", "README.md", "deno.json", "package.json"];
  assertEquals(main.filter((name) => texts.includes(name)), texts);
  const modules = main.filter((name) => !texts.includes(name));
  const strange = modules.filter((name) => {
    return !/^(mod|ffi\/\w+|bindings\/integers|bindings\/(llama_cpp|paged)\/\w+)\.[jt]s$/.test(
      name,
    );
  });
  assertEquals(strange, []);
  for (const ending of [".js", ".ts"]) {
    assert(modules.includes(`bindings/llama_cpp/mod${ending}`));
    assertEquals(modules.filter((name) => name.endsWith(ending)).length, modules.length / 2);
  }
  for (const target of TARGETS) {
    const place = libraryFolder(target);
    assertEquals(
      withoutCuda(await listArchive(archive(dist, target.name))),
      ["LICENSE", ...libraryNames(target).map((name) => `${place}/${name}`), "package.json"],
    );
  }
}

async function checkWheels(dist: string): Promise<void> {
  const wheels = files(dist).filter((path) => path.endsWith(".whl"));
  assertEquals(wheels.length, TARGETS.filter(({ wheel }) => typeof wheel === "string").length);
  const plugin = join(repoRoot(), "bindings", "vllm", "src", "chunkkv_vllm");
  const modules = [...Deno.readDirSync(plugin)].map(({ name }) => name);
  for (const target of TARGETS) {
    if (typeof target.wheel !== "string") continue;
    const wheel = wheels.find((path) => path.endsWith(`-py3-none-${target.wheel}.whl`));
    assert(wheel, `${target.wheel} in ${wheels}`);
    const held = withoutCuda(await listWheel(wheel)).filter((name) => !name.includes("dist-info"));
    const library = libraryNames(target)[0] ?? "";
    const expected = [...modules.filter((name) => name.endsWith(".py")), library];
    assertEquals(held, expected.map((name) => `chunkkv_vllm/${name}`).sort());
  }
}

/** Every library is of its platform, needs no new system, and does not tell where it was built. */
function checkLibraries(dist: string): void {
  for (const target of TARGETS) {
    const folder = join(dist, "npm", target.name, libraryFolder(target));
    for (const path of files(folder)) {
      const bytes = Deno.readFileSync(path);
      assertEquals(binaryKind(bytes), `${FORMATS[target.os]} ${target.arch}`, path);
      if (target.os === "linux") assert(newestGlibc(bytes) <= 28, path);
      const text = new TextDecoder("latin1").decode(bytes);
      for (const secret of [repoRoot(), Deno.cwd(), process.env["HOME"] ?? repoRoot()]) {
        if (secret.length > 1) assert(!text.includes(secret), `${secret} in ${path}`);
      }
    }
  }
}

/** Installs the packages as a user's project has them, and runs a program in it. */
async function useFromDeno(dist: string, target: Target, folder: string): Promise<void> {
  Deno.writeTextFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
  Deno.writeTextFileSync(join(folder, "deno.json"), '{ "nodeModulesDir": "manual" }\n');
  Deno.copyFileSync(join(repoRoot(), "tests/package/program.ts"), join(folder, "program.ts"));
  const archives = [archive(dist, "chunkkv"), archive(dist, target.name)];
  const quiet = ["--offline", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"];
  await run(["npm", "install", ...quiet, ...archives], { cwd: folder });

  await capture([Deno.execPath(), "check", "--quiet", "program.ts"], { cwd: folder });
  // Nothing else; a part of this one is not enough for pointers.
  const command = ["run", "--no-prompt", "--allow-ffi", "program.ts"];
  const output = await capture([Deno.execPath(), ...command, await enginePath()], { cwd: folder });
  const said = JSON.parse(output);
  const installed = join("node_modules", "@chunkkv", target.name, libraryFolder(target));
  assertEquals(said.version, version);
  assertEquals(said.path, join(Deno.realPathSync(folder), installed, basename(said.path)));
  assertEquals(said.scores, 1000);
  assertEquals(said.kept.length, 100);
  assertEquals(said.kept.filter((token: number) => token >= 500 && token < 510).length, 10);
  assertEquals(said.rows, said.kept.indexOf(500));
  assertEquals([said.release, said.paged], ["0.5.0", "function"]);
}

/** Installs the wheel, and loads the library that it holds. */
async function useFromPython(dist: string, target: Target, folder: string): Promise<void> {
  const python = venvPython() ?? "python3";
  const wheel = files(dist).find((path) => path.endsWith(`-${target.wheel}.whl`));
  assert(wheel);
  const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"];
  await run([python, ...pip, "--no-deps", "--no-compile", "--target", folder, wheel]);
  const program = [
    "import sys",
    "sys.path.insert(0, sys.argv[1])",
    "import chunkkv_vllm",
    "from chunkkv_vllm.library import library_path, load",
    "path = library_path()",
    "print(chunkkv_vllm.__version__, load(path).ckv_version().decode(), path)",
  ].join("\n");
  const said = await capture([python, "-I", "-B", "-c", program, folder], {
    cwd: folder,
    env: { CHUNKKV_LIBRARY: "" },
  });
  const library = join(Deno.realPathSync(folder), "chunkkv_vllm", libraryNames(target)[0] ?? "");
  assertEquals(said, `${version} ${version} ${library}`);
}

Deno.test("packages are whole, work where they are installed, and are the same twice", async (t) => {
  await withFolder(async (root) => {
    const dist = join(root, "dist");
    const { gaps, failed } = await layOut(dist, () => {});
    assertEquals(failed, []);
    await t.step("what is missing is said", () => {
      const said = gaps.filter(({ what }) => what !== "chunkkv_cuda");
      assertEquals(said.map(({ target, what }) => `${target} ${what}`), [
        "win32-x64 chunkkv_preload",
        "win32-x64 wheel of the vLLM plugin",
      ]);
    });
    await t.step("npm packages hold what they should and nothing else", () => checkLists(dist));
    await t.step("wheels hold what they should and nothing else", () => checkWheels(dist));
    await t.step("libraries are of their platforms", () => checkLibraries(dist));
    for (const [name, use] of Object.entries({ Deno: useFromDeno, Python: useFromPython })) {
      await t.step({
        name: `${name} uses what is installed outside of the repository`,
        ignore: here === undefined,
        fn: async () => {
          const folder = join(root, name);
          Deno.mkdirSync(folder);
          if (here) await use(dist, here, folder);
        },
      });
    }
    await t.step("again, the same bytes", async () => {
      const again = join(root, "again");
      await layOut(again, () => {});
      const sums = Deno.readTextFileSync(join(dist, SUMS));
      assertEquals(Deno.readTextFileSync(join(again, SUMS)), sums);
      const listed = sums.trimEnd().split("\n").map((line) => line.slice(66)).sort();
      const held = files(dist).map((path) => path.slice(dist.length + 1).replaceAll("\\", "/"));
      assertEquals(listed, held.filter((name) => name !== SUMS).sort());
    });
  });
});
