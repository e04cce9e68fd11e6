/**
 * The Python wheel of the vLLM plugin, with one platform's libchunkkv inside.
 *
 * @module
 */
import { basename, join } from "node:path";

import { buildDir, exists, repoRoot, venvPython } from "../paths.ts";
import { run } from "../process.ts";
import type { Target } from "./targets.ts";

/** What makes wheels: pinned, as it writes its own name and version into them. */
const SETUPTOOLS = "80.9.0";

// Archives count time from this second on.
const EPOCH = String(Date.UTC(1980, 0, 1) / 1000);

/**
 * Makes the wheel of one platform.
 *
 * @param platform The wheel's platform tag.
 * @param libraries What it holds besides Python.
 * @throws {Error} If Python or pip is missing or fails.
 */
export async function makeWheel(
  target: Target,
  platform: string,
  libraries: string[],
  destination: string,
): Promise<void> {
  const python = venvPython();
  if (!python) throw new Error("Expected Python from `deno task setup` but found none");
  const tools = await wheelTools(python);
  const stage = join(buildDir(), "package", `${target.name}-wheel`);
  layOut(stage, libraries);
  const env = { PYTHONPATH: tools, SOURCE_DATE_EPOCH: EPOCH, PYTHONDONTWRITEBYTECODE: "1" };
  const wheel = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir"];
  const option = `--config-settings=--build-option=--plat-name=${platform}`;
  await run([...pip(python), ...wheel, option, "--wheel-dir", destination, stage], { env });
}

/** A fresh copy of the plugin's sources: builds leave files beside them. */
function layOut(stage: string, libraries: string[]): void {
  if (exists(stage)) Deno.removeSync(stage, { recursive: true });
  const plugin = join(repoRoot(), "bindings", "vllm");
  const modules = join("src", "chunkkv_vllm");
  Deno.mkdirSync(join(stage, modules), { recursive: true });
  const copy = (from: string, to: string, mode: number) => {
    Deno.writeFileSync(join(stage, to), Deno.readFileSync(from));
    Deno.chmodSync(join(stage, to), mode);
  };
  copy(join(repoRoot(), "LICENSE"), "LICENSE", 0o644);
  for (const name of ["pyproject.toml", "setup.py"]) copy(join(plugin, name), name, 0o644);
  for (const { name } of Deno.readDirSync(join(plugin, modules))) {
    if (!name.endsWith(".py")) continue;
    copy(join(plugin, modules, name), join(modules, name), 0o644);
  }
  for (const path of libraries) copy(path, join(modules, basename(path)), 0o755);
}

/** The folder with setuptools, installed where it is missing. */
async function wheelTools(python: string): Promise<string> {
  const folder = join(buildDir(), "package", `setuptools-${SETUPTOOLS}`);
  if (!exists(join(folder, "setuptools", "__init__.py"))) {
    const install = ["install", "--no-deps", "--target", folder, `setuptools==${SETUPTOOLS}`];
    await run([...pip(python), ...install]);
  }
  return folder;
}

function pip(python: string): string[] {
  return [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"];
}
