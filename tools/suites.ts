/**
 * The test suites: what each runs.
 *
 * @module
 */
import { basename, join } from "node:path";
import process from "node:process";

import { arm64 } from "./arm64.ts";
import { ensureChromium } from "./chromium.ts";
import { buildCuda, buildCudaTest, buildPlanTest, cudaTestDir, installCudaTools } from "./cuda.ts";
import { buildLlamaServer } from "./llama_server.ts";
import { buildFaultTests } from "./faults.ts";
import { buildNative } from "./native.ts";
import { buildDir, exists, libraryName, repoRoot } from "./paths.ts";
import { tee } from "./process.ts";
import { sanitizers, threadSanitizer } from "./sanitizers.ts";
import { type Counts, readSummary, sum } from "./test_summary.ts";
import { testVllm } from "./vllm.ts";

/** Runs one suite; the filter picks TypeScript tests by name. */
export type Suite = (filter: string | undefined) => Promise<Counts>;

const PERMISSIONS = ["read", "write", "env", "ffi", "run", "sys"].map((name) => `--allow-${name}`);

/** All suites by name, in the order in which they run. */
export const SUITES: Record<string, Suite> = {
  native: async () => {
    await buildNative();
    return await runCTests(join(buildDir(), "tests"), {});
  },
  deno: async (filter) => {
    await buildNative(); // the fake CUDA library too
    return await runDeno(filter, [
      "--trace-leaks",
      "--ignore=tests/golden,tests/preload,tests/cuda,tests/report,tests/quick,tests/security," +
      "tests/package",
      "tests",
    ]);
  },
  examples: (filter) => runDeno(filter, ["--doc", ...sources()]),
  golden: (filter) => runDeno(filter, ["--trace-leaks", "tests/golden"]),
  device: async (filter) => {
    if (process.platform !== "linux") return { passed: 0, failed: 0, skipped: 1 };
    await buildNative();
    const env = { CHUNKKV_CUDA_LIBRARY: join(buildDir(), libraryName("chunkkv_cuda_fake")) };
    return sum([
      await runProgram([join(cudaTestDir(), "cuda_test"), "--quick"], env),
      await runDeno(filter, ["--trace-leaks", "tests/cuda/device_test.ts"], env),
      await runDeno(filter, ["tests/cuda/llama_cpp_test.ts"]),
      // The tests of the paged cache again, in memory of the device.
      await runDeno(filter, ["--trace-leaks", "tests/paged"], {
        ...env,
        CHUNKKV_TEST_DEVICE: "cuda",
      }),
    ]);
  },
  sanitize: async () => {
    const { toolchain, defines, env, says } = await sanitizers();
    console.log(`With ${says}`);
    const folder = join(buildDir(), "sanitize");
    await buildNative({ folder, toolchain, defines });
    return await runCTests(join(folder, "tests"), env);
  },
  threads: async () => {
    const { toolchain, defines, env, says } = await threadSanitizer();
    console.log(`With ${says}`);
    const folder = join(buildDir(), "threads");
    const targets = THREADED.map((name) => `${name}_test`);
    await buildNative({ folder, toolchain, defines, targets });
    return await runCTests(join(folder, "tests"), { ...env, CKV_TEST_ROUNDS: "1" });
  },
  faults: async () => {
    const { commands, env } = await buildFaultTests();
    const all: Counts[] = [];
    for (const command of commands) all.push(await runProgram(command, env));
    return sum(all);
  },
  security: async (filter) => {
    await buildLlamaServer();
    return await runDeno(filter, ["tests/security"]);
  },
  package: (filter) => runDeno(filter, ["tests/package"]),
  neon: async () => {
    const { build, emulator } = arm64();
    await buildNative(build);
    // Emulation is slow: fewer rounds of the random cases.
    const env = { CKV_TEST_ROUNDS: "1" };
    return await runCTests(join(build.folder, "tests"), env, [emulator]);
  },
  cuda: async (filter) => {
    await installCudaTools();
    await buildCuda();
    await buildCudaTest();
    return sum([
      await runProgram([await buildPlanTest()], {}),
      await runProgram([join(cudaTestDir(), "cuda_test"), "--quick", "--device", "cpu"], {}),
      await runDeno(filter, ["tests/cuda/refusal_test.ts"]),
    ]);
  },
  preload: async (filter) => {
    await buildNative(); // the libraries for tests alone, too
    await buildLlamaServer();
    return await runDeno(filter, ["--allow-net=127.0.0.1", "tests/preload"]);
  },
  report: async (filter) => {
    const env = { CHUNKKV_CHROMIUM: await ensureChromium() };
    // All permissions: what drives the browser looks into /proc.
    return await runDeno(filter, ["tests/report"], env, ["--allow-all"]);
  },
  quick: (filter) => runDeno(filter, ["tests/quick"]),
  vllm: testVllm,
};

/** The C tests in which threads meet. */
const THREADED = ["threads", "contexts", "steady", "compress", "compact"];

/** The suites that run where none is named. */
export const DEFAULT_SUITES = ["native", "deno", "device", "examples", "golden"];

async function runCTests(
  folder: string,
  env: Record<string, string>,
  emulator: string[] = [],
): Promise<Counts> {
  const programs = [...Deno.readDirSync(folder)]
    .map((entry) => entry.name)
    .filter((name) => basename(name, ".exe").endsWith("_test"))
    .sort();
  if (programs.length === 0) throw new Error(`Expected C tests in ${folder} but found none`);
  const all: Counts[] = [];
  for (const program of programs) {
    all.push(await runProgram([...emulator, join(folder, program)], env));
  }
  return sum(all);
}

async function runProgram(command: string[], env: Record<string, string>): Promise<Counts> {
  const name = command.map((word) => basename(word)).join(" ");
  console.log(`-- ${name}`);
  const { code, output } = await tee(command, { cwd: repoRoot(), env });
  if (code !== 0) console.log(`${name} ended with exit code ${code}`);
  return readSummary(output, code);
}

async function runDeno(
  filter: string | undefined,
  args: string[],
  env: Record<string, string> = {},
  permissions: string[] = PERMISSIONS,
): Promise<Counts> {
  const filters = filter === undefined ? [] : ["--filter", filter];
  const command = [Deno.execPath(), "test", ...permissions, ...filters, ...args];
  const { code, output } = await tee(command, { cwd: repoRoot(), env: { NO_COLOR: "1", ...env } });
  return readSummary(output, code);
}

/** Files and folders whose examples are tests. */
function sources(): string[] {
  const names = ["README.md", "mod.ts", "ffi", "bindings", "docs"];
  return names.filter((name) => exists(join(repoRoot(), name)));
}
