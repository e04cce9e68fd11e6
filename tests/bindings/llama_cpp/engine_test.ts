/**
 * What can be wrong with libllama and the bridge, each with its own error.
 *
 * @module
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { BRIDGE_VARIABLE, ENGINE_VARIABLE, llamaEngine } from "chunkkv/llama-cpp";

import { libraryFileName } from "../../../ffi/library_path.ts";
import { compileC } from "../../ffi/c_compiler.ts";

const ROOT = new URL("../../../", import.meta.url);
const EXPORT = Deno.build.os === "windows" ? "__declspec(dllexport) " : "";

/** Runs `body` with a folder that is gone afterwards. */
async function withFolder(body: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "chunkkv-engine-" });
  try {
    await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function compileLibrary(folder: string, name: string, source: string): string {
  const path = `${folder}/${libraryFileName(name)}`;
  compileC(source, path, Deno.build.os === "windows" ? ["-shared"] : ["-shared", "-fPIC"]);
  return path;
}

/** Asks for the engine in a Deno of its own; prints the code and the text of the error. */
async function engineIn(
  env: Record<string, string>,
  permissions = ["--allow-ffi", "--allow-read", "--allow-env"],
): Promise<string> {
  let text = "";
  await withFolder((folder) => {
    const code = `
      import { ChunkKvError, llamaEngine } from "chunkkv/llama-cpp";
      try {
        console.log("opened", (await llamaEngine()).version);
      } catch (error) {
        console.log(error instanceof ChunkKvError ? error.code + ": " + error.message : error);
      }
    `;
    Deno.writeTextFileSync(`${folder}/main.ts`, code);
    const config = decodeURIComponent(new URL("deno.json", ROOT).pathname);
    const { success, stdout, stderr } = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--no-prompt",
        "--no-lock",
        `--config=${config}`,
        ...permissions,
        `${folder}/main.ts`,
      ],
      env: { ...env, NO_COLOR: "1" },
    }).outputSync();
    assert(success, new TextDecoder().decode(stderr));
    assertEquals(new TextDecoder().decode(stderr), "");
    text = new TextDecoder().decode(stdout).trim();
  });
  return text;
}

Deno.test("the engine is found and opened once", async () => {
  const engine = await llamaEngine();
  assert(engine.version.startsWith(engine.release));
  assertEquals(await llamaEngine(), engine);
  assertEquals(await engineIn({ [ENGINE_VARIABLE]: engine.path }), `opened ${engine.version}`);
});

Deno.test("a folder stands for the libllama in it", async () => {
  const engine = await llamaEngine();
  const folder = engine.path.replace(/\/[^/]*$/, "");
  assertEquals(await engineIn({ [ENGINE_VARIABLE]: folder }), `opened ${engine.version}`);
});

Deno.test("a libllama that is not there is library_not_found", async () => {
  await withFolder(async (folder) => {
    assertStringIncludes(
      await engineIn({ [ENGINE_VARIABLE]: `${folder}/none.so` }),
      `library_not_found: Expected libllama at ${folder}/none.so but found no such file`,
    );
    assertStringIncludes(
      await engineIn({ [ENGINE_VARIABLE]: folder }),
      `library_not_found: Expected libllama in ${folder} but found no library of that name`,
    );
  });
});

Deno.test("a file that is no library is library_not_loadable", async () => {
  await withFolder(async (folder) => {
    Deno.writeTextFileSync(`${folder}/libllama.so`, "no library");
    assertStringIncludes(
      await engineIn({ [ENGINE_VARIABLE]: `${folder}/libllama.so` }),
      `library_not_loadable: Expected ${folder}/libllama.so to be a loadable libllama but found: `,
    );
  });
});

Deno.test("a libllama of another release is abi_mismatch", async () => {
  const { release } = await llamaEngine();
  await withFolder(async (folder) => {
    const source = `${EXPORT}const char *llama_version(void) { return "0.4.9"; }\n`;
    const path = compileLibrary(folder, "llama", source);
    assertEquals(
      await engineIn({ [ENGINE_VARIABLE]: path }),
      `abi_mismatch: Expected llama.cpp ${release}, the release of the headers that the bridge ` +
        `was compiled with, but found 0.4.9 at ${path}`,
    );
  });
});

Deno.test("a library without llama's functions is abi_mismatch", async () => {
  const { release } = await llamaEngine();
  await withFolder(async (folder) => {
    const none = compileLibrary(folder, "none", `${EXPORT}int nothing(void) { return 0; }\n`);
    assertStringIncludes(
      await engineIn({ [ENGINE_VARIABLE]: none }),
      "but found a library without llama_version()",
    );
    const source = `${EXPORT}const char *llama_version(void) { return "${release}"; }\n`;
    const bare = compileLibrary(folder, "llama", source);
    assertStringIncludes(
      await engineIn({ [ENGINE_VARIABLE]: bare }),
      `abi_mismatch: Expected ${bare} to have the function llama_get_memory but found none`,
    );
  });
});

Deno.test("a bridge that is not there, or of another ABI version, says so", async () => {
  await withFolder(async (folder) => {
    assertEquals(
      await engineIn({ [BRIDGE_VARIABLE]: `${folder}/none.so` }),
      `library_not_found: Expected libchunkkv_llama at ${folder}/none.so but found no such file`,
    );
    const source = `${EXPORT}unsigned ckv_llama_abi_version(void) { return 99; }\n`;
    const path = compileLibrary(folder, "chunkkv_llama", source);
    assertStringIncludes(
      await engineIn({ [BRIDGE_VARIABLE]: path }),
      `abi_mismatch: Expected libchunkkv_llama at ${path} to have ABI version 1 but found 99`,
    );
  });
});

Deno.test("no permission is permission_denied", async () => {
  assertStringIncludes(await engineIn({}, ["--allow-read", "--allow-env"]), "permission_denied: ");
});
