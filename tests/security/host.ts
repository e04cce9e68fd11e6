/**
 * A small program that uses libllama, with the library in front of it or without.
 *
 * @module
 */
import { dirname, join } from "node:path";

import { enginePath } from "../../bindings/llama_cpp/engine_path.ts";
import { llamaIncludeDir, repoRoot } from "../../tools/paths.ts";
import { run } from "../../tools/process.ts";
import { systemCompiler } from "../../tools/toolchain.ts";
import { writeTinyModel } from "../faults/tiny_model.ts";
import { builtLibrary } from "./elf.ts";

/** Settings under which its prompt of 90 tokens is compressed to 36. */
export const SETTINGS = {
  CHUNKKV_KEEP: "0.4",
  CHUNKKV_MIN_TOKENS: "16",
  CHUNKKV_WINDOW: "16",
  CHUNKKV_THREADS: "1",
};

/** Compiles it into `folder`; returns its command. */
export async function buildHost(folder: string, withLibrary: boolean): Promise<string[]> {
  const compiler = systemCompiler();
  if (!compiler) throw new Error("Expected a C compiler in PATH but found none");
  const engine = await enginePath();
  const [program, model] = [join(folder, `host-${withLibrary}`), join(folder, "tiny.gguf")];
  const library = withLibrary ? [builtLibrary("chunkkv_preload")] : [];
  const paths = [dirname(engine), dirname(builtLibrary("chunkkv_preload"))];
  await run([
    ...compiler,
    ...["-D_GNU_SOURCE", `-I${llamaIncludeDir()}`, "-o", program],
    join(repoRoot(), "tests", "security", "host.c"),
    ...["-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", ...library, engine, "-ldl"],
    ...paths.map((path) => `-Wl,-rpath,${path}`),
  ]);
  writeTinyModel(model);
  return [program, dirname(engine), model];
}
