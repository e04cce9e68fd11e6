/**
 * What can be wrong with a native library, each with its own error.
 *
 * @module
 */
import { ChunkKvError, libraryPath } from "chunkkv";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { libraryFileName, libraryPaths, tryEnvironment } from "../../ffi/library_path.ts";
import { openLibrary } from "../../ffi/open_library.ts";
import { compileC } from "./c_compiler.ts";

const ABI = { symbol: "thing_abi_version", expected: 3 };
const SYMBOLS = { thing_answer: { parameters: [], result: "i32" } } as const;
const EXPORT = Deno.build.os === "windows" ? "__declspec(dllexport) " : "";
const ROOT = new URL("../../", import.meta.url);

/** Runs `body` with a folder that is gone afterwards. */
function withFolder(body: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync({ prefix: "chunkkv-open-" });
  try {
    body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function compileThing(folder: string, source: string): string {
  const path = `${folder}/${libraryFileName("thing")}`;
  compileC(source, path, Deno.build.os === "windows" ? ["-shared"] : ["-shared", "-fPIC"]);
  return path;
}

function openThing(path: string) {
  return openLibrary({ name: "libthing", path, symbols: SYMBOLS, abi: ABI });
}

/** Runs code that imports the package in a Deno of its own, with only the given permissions. */
function runDeno(permissions: string[], code: string, env: Record<string, string> = {}) {
  let text = "";
  withFolder((folder) => {
    const file = `${folder}/main.ts`;
    Deno.writeTextFileSync(file, code);
    const config = decodeURIComponent(new URL("deno.json", ROOT).pathname);
    const { success, stdout, stderr } = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--no-lock", `--config=${config}`, ...permissions, file],
      env: { ...env, NO_COLOR: "1" },
    }).outputSync();
    assert(success, new TextDecoder().decode(stderr));
    text = new TextDecoder().decode(stdout).trim();
  });
  return text;
}

/** Prints the code of the error that opening the library ends in, or `opened`. */
const OPEN = `
  import { ChunkKvError, libraryVersion } from "chunkkv";
  try {
    libraryVersion();
    console.log("opened");
  } catch (error) {
    console.log(error instanceof ChunkKvError ? error.code + ": " + error.message : error);
  }
`;

Deno.test("openLibrary() opens a library of the expected ABI version", () => {
  withFolder((folder) => {
    const path = compileThing(
      folder,
      `${EXPORT}unsigned thing_abi_version(void) { return 3; }\n` +
        `${EXPORT}int thing_answer(void) { return 42; }\n`,
    );
    const library = openThing(path);
    assertEquals(library.symbols.thing_answer(), 42);
    library.close();
  });
});

Deno.test("openLibrary() refuses another ABI version before it looks at any other function", () => {
  withFolder((folder) => {
    const path = compileThing(
      folder,
      `${EXPORT}unsigned thing_abi_version(void) { return 4; }\n`,
    );
    const error = assertThrows(() => openThing(path), ChunkKvError, "ABI version 3 but found 4");
    assertEquals(error.code, "abi_mismatch");
  });
});

Deno.test("openLibrary() names a missing function and keeps the cause", () => {
  withFolder((folder) => {
    const path = compileThing(
      folder,
      `${EXPORT}unsigned thing_abi_version(void) { return 3; }\n`,
    );
    const error = assertThrows(() => openThing(path), ChunkKvError, "thing_answer");
    assertEquals(error.code, "symbol_missing");
    assert(error.cause instanceof Error);
  });
});

Deno.test("openLibrary() names a library without a version", () => {
  withFolder((folder) => {
    const path = compileThing(folder, `${EXPORT}int thing_answer(void) { return 42; }\n`);
    const error = assertThrows(() => openThing(path), ChunkKvError, "thing_abi_version");
    assertEquals(error.code, "symbol_missing");
  });
});

Deno.test("openLibrary() tells a missing file from one that is no library", () => {
  withFolder((folder) => {
    const missing = assertThrows(() => openThing(`${folder}/none.so`), ChunkKvError, "none.so");
    assertEquals(missing.code, "library_not_found");
    assert(missing.cause instanceof Error);

    Deno.writeTextFileSync(`${folder}/text.so`, "this is a text");
    const text = assertThrows(() => openThing(`${folder}/text.so`), ChunkKvError, "text.so");
    assertEquals(text.code, "library_not_loadable");
    assert(text.cause instanceof Error);

    Deno.mkdirSync(`${folder}/folder.so`);
    const directory = assertThrows(() => openThing(`${folder}/folder.so`), ChunkKvError);
    assertEquals(directory.code, "library_not_loadable");
  });
  const bare = assertThrows(() => openThing("libchunkkv-no-such.so"), ChunkKvError, "no-such");
  assertEquals(bare.code, "library_not_found");
});

Deno.test("importing the package needs no permission and no library", () => {
  const code = `
    import { chunkKv, contiguousKv } from "chunkkv";
    const data = new Float32Array(64);
    console.log(chunkKv().chunkSize, contiguousKv({ data, numKvHeads: 1, kvLen: 1, headDim: 64 }).batch);
  `;
  assertEquals(runDeno([], code, { CHUNKKV_LIBRARY: "/no/such/libchunkkv.so" }), "10 1");
});

Deno.test("a missing --allow-ffi is a typed error", () => {
  assertStringIncludes(
    runDeno(["--allow-env", "--allow-read"], OPEN, { CHUNKKV_LIBRARY: libraryPath() }),
    "permission_denied: Expected permission to load libchunkkv",
  );
});

Deno.test("--allow-ffi alone opens the library, and finds out that it is missing", () => {
  const env = { CHUNKKV_LIBRARY: libraryPath() };
  assertEquals(runDeno(["--allow-ffi", "--allow-env=CHUNKKV_LIBRARY"], OPEN, env), "opened");
  assertStringIncludes(
    runDeno(["--allow-ffi", "--allow-env"], OPEN, { CHUNKKV_LIBRARY: "/no/such/libchunkkv.so" }),
    "library_not_found: Expected libchunkkv at /no/such/libchunkkv.so",
  );
});

Deno.test("CHUNKKV_LIBRARY is the only place to look where it is set", () => {
  const name = "CHUNKKV_TEST_LIBRARY";
  Deno.env.set(name, "/some/where.so");
  try {
    assertEquals(libraryPaths("thing", name), { candidates: ["/some/where.so"], explicit: true });
  } finally {
    Deno.env.delete(name);
  }
  const { candidates, explicit } = libraryPaths("thing", name);
  assertEquals(explicit, false);
  const build = decodeURIComponent(new URL("build/", ROOT).pathname);
  if (Deno.build.os !== "windows") assertEquals(candidates[0], build + libraryFileName("thing"));
  assertStringIncludes(candidates[1] ?? "", `${Deno.build.os}-${Deno.build.arch}`);
});

Deno.test("an unset, empty or unreadable variable counts as unset", () => {
  assertEquals(tryEnvironment("CHUNKKV_NO_SUCH_VARIABLE"), undefined);
  const code = `
    import { tryEnvironment } from "${new URL("ffi/library_path.ts", ROOT)}";
    console.log(tryEnvironment("HOME"), tryEnvironment("EMPTY"));
  `;
  assertEquals(runDeno(["--allow-env=EMPTY"], code, { EMPTY: "" }), "undefined undefined");
});
