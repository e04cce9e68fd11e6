/**
 * libchunkkv_cuda where it cannot work: every way in says why, and the CPU goes on.
 *
 * @module
 */
import { chunkKv, ChunkKvError, Compressor, describeDevice, DeviceBuffer, Scores } from "chunkkv";
import { assertEquals, assertThrows } from "@std/assert";

// Where there is a GPU, there is nothing to refuse.
const ignore = isUsable();
const WORDS =
  /^Expected an NVIDIA driver for CUDA 13\.\d or newer but found|^Expected a CUDA device/;

function isUsable(): boolean {
  try {
    describeDevice("cuda");
    return true;
  } catch {
    return false;
  }
}

function refused(use: () => unknown): void {
  const error = assertThrows(use, ChunkKvError);
  assertEquals(error.code, "unsupported", error.message);
  assertEquals(WORDS.test(error.message), true, error.message);
}

Deno.test("without a driver or a GPU every use of CUDA says so", { ignore }, () => {
  for (let round = 0; round < 2; round++) {
    refused(() => describeDevice("cuda"));
    refused(() => new Compressor({ device: "cuda" }));
    refused(() => new DeviceBuffer(16));
    refused(() => DeviceBuffer.from(new Float32Array(4)));
  }
});

Deno.test("the CPU goes on", { ignore }, () => {
  assertThrows(() => new Compressor({ device: "cuda" }), ChunkKvError);
  using compressor = new Compressor({ threads: 1 });
  const scores = new Scores(1, 1, 100);
  assertEquals(compressor.select({ scores, method: chunkKv(), budget: 50 }).lens[0], 50);
  compressor.finish();
});

/** Runs in a process of its own, where the library is opened for the first time. */
function describeWith(library: string): string {
  const code = `
    import { describeDevice } from "chunkkv";
    try { console.log(describeDevice("cuda")); } catch (error) { console.log(error.message); }
  `;
  const folder = Deno.makeTempDirSync({ prefix: "chunkkv-cuda-" });
  try {
    Deno.writeTextFileSync(`${folder}/main.ts`, code);
    const config = decodeURIComponent(new URL("../../deno.json", import.meta.url).pathname);
    const { stdout } = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-lock", "--no-check", "-A", `--config=${config}`, `${folder}/main.ts`],
      env: { CHUNKKV_CUDA_LIBRARY: library },
    }).outputSync();
    return new TextDecoder().decode(stdout).trim();
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("a missing libchunkkv_cuda is named with its path", () => {
  const text = describeWith("/nowhere/libchunkkv_cuda.so");
  assertEquals(
    /^Expected libchunkkv_cuda\.so beside libchunkkv or named in .* but found: \/nowhere\//.test(
      text,
    ),
    true,
    text,
  );
});

Deno.test("another library in its place is refused", () => {
  const other = new URL("../../build/libchunkkv_limits.so", import.meta.url).pathname;
  const text = describeWith(other);
  assertEquals(/of the same build \(interface \d+\) but found another/.test(text), true, text);
});
