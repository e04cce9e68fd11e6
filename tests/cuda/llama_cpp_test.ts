/**
 * The llama.cpp adapter as it is where the engine's cache is on a GPU: the real engine's tests once
 * more with a bridge that takes all memory for a device's, which a libchunkkv_cuda on the CPU serves.
 *
 * @module
 */
import { join } from "node:path";

import { assertEquals } from "@std/assert";

import { buildDir, libraryName, repoRoot } from "../../tools/paths.ts";

const FILES = [
  "cache_types",
  "compression",
  "h2o",
  "pyramidkv",
  "sequences",
  "sliding_window",
];

Deno.test("what the engine computes is the same where its cache is on a device", async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      ...["read", "write", "env", "ffi", "run", "sys"].map((name) => `--allow-${name}`),
      ...FILES.map((name) => join(repoRoot(), "tests/bindings/llama_cpp", `${name}_test.ts`)),
    ],
    env: {
      NO_COLOR: "1",
      CHUNKKV_LLAMA_BRIDGE: join(buildDir(), libraryName("ckv_llama_on_device")),
      CHUNKKV_CUDA_LIBRARY: join(buildDir(), libraryName("chunkkv_cuda_fake")),
    },
  }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  const passed = Number(/ok \| (\d+) passed/.exec(text)?.[1] ?? 0);
  assertEquals([code, passed >= 60], [0, true], text);
});
