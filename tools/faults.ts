/**
 * The tests in which allocations and calls of the engine fail, with the sanitizers where they are.
 *
 * @module
 */
import { join } from "node:path";

import { enginePath } from "../bindings/llama_cpp/engine_path.ts";
import { writeTinyModel } from "../tests/faults/tiny_model.ts";
import { buildNative } from "./native.ts";
import { buildDir, libraryName } from "./paths.ts";
import { sanitizers } from "./sanitizers.ts";

/** Programs to run, with their arguments, and the environment for them. */
export async function buildFaultTests(): Promise<{
  commands: string[][];
  env: Record<string, string>;
}> {
  const { toolchain, defines, env, says } = await sanitizers();
  console.log(`With ${says}`);
  const engine = await enginePath();
  const folder = join(buildDir(), "faults");
  const names = [
    "library_fault_test",
    "bridge_fault_test",
    "device_bridge_fault_test",
    "preload_fault_test",
  ];
  await buildNative({
    folder,
    toolchain,
    defines: [...defines, "CKV_FAULTS=ON", `CKV_LLAMA_LIBRARY=${engine}`],
    targets: names,
  });
  await buildNative({ targets: ["chunkkv_cuda_fake"] });
  const model = join(folder, "tiny.gguf");
  writeTinyModel(model);
  const sliding = join(folder, "tiny-sliding.gguf");
  writeTinyModel(sliding, 24);
  const around = engine.slice(0, engine.lastIndexOf("/"));
  const runs: [name: string, ...args: string[]][] = [
    ["library_fault_test"],
    ["bridge_fault_test", engine, around, model, sliding],
    ["device_bridge_fault_test", engine, around, model, sliding],
    ["preload_fault_test", around, model],
    ["preload_fault_test", around, sliding],
  ];
  return {
    commands: runs.map(([name, ...args]) => [join(folder, "faults", name), ...args]),
    env: {
      ...env,
      CHUNKKV_CUDA_LIBRARY: join(buildDir(), libraryName("chunkkv_cuda_fake")),
    },
  };
}
