import { join } from "node:path";
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import type { KernelRow } from "../../bench/kernels/measure.ts";
import { LAYOUTS } from "../../bench/kernels/workload.ts";
import type { DeviceRow } from "../../bench/kernels/device_measure.ts";
import { buildDir, libraryName } from "../../tools/paths.ts";
import { chunkkv } from "./run.ts";

/** Runs `kernels` on a small layer and returns its rows by stage. */
async function rows(args: string[]): Promise<Record<string, KernelRow>> {
  const folder = await Deno.makeTempDir();
  try {
    const json = `${folder}/kernels.json`;
    const small = ["--shape", "smollm2", "--n", "512", "--seconds", "0", "--threads", "1"];
    const { code, stdout, stderr } = await chunkkv([
      "kernels",
      ...small,
      ...args,
      "--json",
      json,
    ]);
    assertEquals(code, 0, stderr);
    for (const words of ["of limit", "of runs", "memory read", "copy", "FMA", "QK^T"]) {
      assertStringIncludes(stdout, words);
    }
    const results = JSON.parse(await Deno.readTextFile(json));
    assertEquals(results.command, "kernels");
    assert(results.limits.read_gb_s > 0 && results.limits.copy_gb_s > 0);
    return Object.fromEntries(results.rows.map((row: KernelRow) => [row.stage, row]));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("kernels counts the bytes and operations of each stage", async () => {
  const { score, select, compact, sum } = await rows(["--dtype", "f32", "--keep", "0.25"]);
  assert(score && select && compact && sum, "every stage has a row");
  assertEquals(score.gflop, 2 * 9 * 32 * 512 * 64 / 1e9);
  assertEquals(score.bytes, 3 * 512 * 64 * 4);
  assertEquals(select.bytes, 512 * 4);
  // Keys and values, read and written, of a quarter of the tokens.
  assertEquals(compact.bytes, 2 * 2 * 3 * 128 * 64 * 4);
  assertAlmostEquals(sum.ms, score.ms + select.ms + compact.ms, 1e-9);
  assert(compact.of_runs! > 0, "compact has a second yardstick");
  assertEquals([score.of_runs, select.of_runs, sum.of_runs], [null, null, null]);
  for (const row of [score, select, compact, sum]) {
    assert(row.ms > 0 && row.median_ms >= row.ms && row.limit_ms > 0);
    assertAlmostEquals(row.of_limit, row.limit_ms / row.ms, 1e-9);
    assertEquals([row.shape, row.n, row.batch, row.threads], ["smollm2", 512, 1, 1]);
  }
});

for (const layout of LAYOUTS) {
  Deno.test(`kernels measures the ${layout} layout, every sequence of a batch`, async () => {
    const { compact } = await rows(["--layout", layout, "--batch", "3", "--dtype", "q8_0"]);
    assertEquals(compact?.layout, layout);
    assertEquals(compact?.bytes, 2 * 2 * 3 * 3 * 51 * 68);
  });
}

Deno.test("kernels runs the instruction set that was asked for", async () => {
  const { score } = await rows(["--isa", "serial"]);
  assertEquals(score?.isa, "serial");
});

Deno.test("kernels scores bf16 keys with bf16 queries", async () => {
  const { score } = await rows(["--dtype", "bf16"]);
  assertEquals(score?.bytes, 3 * 512 * 64 * 2);
});

// The library whose device is the CPU is built on Linux alone.
const ignore = Deno.build.os !== "linux";
const FAKE = { CHUNKKV_CUDA_LIBRARY: join(buildDir(), libraryName("chunkkv_cuda_fake")) };

Deno.test(
  "kernels on cuda without a device fails and says why: exit code 1",
  { ignore },
  async () => {
    const none = { ...FAKE, CHUNKKV_FAKE_NO_DEVICE: "1" };
    const missing = { CHUNKKV_CUDA_LIBRARY: "/nowhere/libchunkkv_cuda.so" };
    const cases = [[none, "Expected a device but found none"], [missing, "/nowhere/"]] as const;
    for (const [env, words] of cases) {
      const { code, stdout, stderr } = await chunkkv(["kernels", "--device", "cuda"], env);
      assertEquals([code, stdout], [1, ""], stderr);
      assertStringIncludes(stderr, words);
    }
  },
);

Deno.test(
  "kernels on cuda tells every stage of every length, and its limit",
  { ignore },
  async () => {
    const folder = await Deno.makeTempDir();
    try {
      const json = `${folder}/kernels.json`;
      const small = ["--shape", "smollm2", "--n", "64,256", "--keep", "0.5", "--seconds", "0"];
      const cuda = ["kernels", "--device", "cuda", ...small, "--json", json];
      const { code, stdout, stderr } = await chunkkv(cuda, FAKE);
      assertEquals(code, 0, stderr);
      for (const words of ["No GPU at all", "on-device copy", "tensor cores are not counted"]) {
        assertStringIncludes(stdout, words);
      }
      const { args, device, limits, rows } = JSON.parse(await Deno.readTextFile(json));
      assertEquals([args.dtype, args.threads, device.includes("No GPU")], [
        "bf16",
        undefined,
        true,
      ]);
      const stages = ["score", "score chunks", "select", "compact", "sum", "all layers"];
      assertEquals(
        rows.map(({ n, stage }: DeviceRow) => [n, stage]),
        [64, 256].flatMap((n) => stages.map((stage) => [n, stage])),
      );
      for (const row of rows as DeviceRow[]) {
        const cache = 3 * row.n * 64 * 2;
        const [score, select, compact] = [cache, 4 * row.n, 2 * 2 * cache / 2];
        const all = score + select + compact;
        const bytes = {
          ...{ score, "score chunks": score, select, compact },
          ...{ sum: all, "all layers": all },
        };
        assertEquals(row.bytes, bytes[row.stage], row.stage);
        assert(row.ms >= row.shortest_ms && row.shortest_ms > 0);
        assertAlmostEquals(row.limit_ms, row.bytes / limits.copy_gb_s / 1e6, 1e-9);
        assertAlmostEquals(row.of_limit, row.limit_ms / row.ms, 1e-9);
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
);

const BAD_USAGE: [string, string[], string][] = [
  ["an unknown shape", ["--shape", "nonsense"], "llama-3-8b"],
  ["an unknown dtype", ["--dtype", "f64"], "q8_0"],
  ["an unknown layout", ["--layout", "nonsense"], "contiguous"],
  ["to keep nothing", ["--keep", "0"], "above 0 and at most 1"],
  ["heads that do not divide", ["--heads", "10"], "multiple of the 8 kv heads"],
  ["threads of a GPU", ["--device", "cuda", "--threads", "2"], "where it means nothing"],
  ["an instruction set of a GPU", ["--device", "cuda", "--isa", "serial"], "--device cpu"],
  ["a length that is none", ["--n", "4096,"], "whole number of at least 1"],
  ["an instruction set of other machines", [
    "--isa",
    Deno.build.arch === "aarch64" ? "avx2" : "neon",
  ], "neon"],
  [
    "blocks that rows cannot be cut into",
    ["--dtype", "q8_0", "--head-dim", "40"],
    "multiple of 32",
  ],
  ["more than the memory", ["--n", "999999999"], "of memory"],
  ["half a page", ["--layout", "paged", "--n", "100"], "whole pages"],
];

for (const [what, args, words] of BAD_USAGE) {
  Deno.test(`kernels: ${what} is bad usage: exit code 2 and words`, async () => {
    const { code, stderr } = await chunkkv(["kernels", ...args]);
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, words);
  });
}
