import { assert } from "@std/assert";
import { join } from "node:path";
import { buildNative } from "../../tools/native.ts";
import { buildDir } from "../../tools/paths.ts";
import { findToolchain, zigCompiler } from "../../tools/toolchain.ts";

Deno.test("the library to insert into programs on macOS is built, with a table of what it stands in for", async () => {
  const compiler = zigCompiler("aarch64-macos");
  assert(compiler, "no zig: run `deno task setup`");
  const folder = join(buildDir(), "macos");
  await buildNative({
    folder,
    toolchain: { ...findToolchain(), compiler },
    targets: ["chunkkv_preload"],
    defines: ["CMAKE_SYSTEM_NAME=Darwin", "CMAKE_SYSTEM_PROCESSOR=arm64", "CKV_TESTS=OFF"],
  });
  const bytes = await Deno.readFile(join(folder, "libchunkkv_preload.dylib"));
  const text = new TextDecoder("latin1").decode(bytes);
  for (const name of ["__interpose", "_llama_decode", "_ggml_backend_sched_set_eval_callback"]) {
    assert(text.includes(name), `Expected ${name} in the library but found none`);
  }
});
