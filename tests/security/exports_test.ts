/**
 * What the built libraries show to a process: their ABI and nothing else, and how they are linked.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";

import { repoRoot } from "../../tools/paths.ts";
import { readHeader } from "../ffi/header.ts";
import { builtLibrary, dynamicSymbols, headers, LIBRARIES } from "./elf.ts";

function source(...parts: string[]): string {
  return Deno.readTextFileSync(join(repoRoot(), ...parts));
}

/** Names that a text declares or defines by a pattern with one group. */
function names(text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map(([, name = ""]) => name).sort();
}

const PRELOAD = ["bindings", "llama_cpp", "preload"];

const EXPECTED: Record<string, string[]> = {
  chunkkv: readHeader().functions.map(({ name }) => name).sort(),
  chunkkv_llama: names(
    source("bindings", "llama_cpp", "csrc", "bridge.h") +
      source("bindings", "llama_cpp", "csrc", "eval_hook.c"),
    // What bridge.h declares, and the engine's functions that eval_hook.c stands in for.
    /^(?:CKV_LLAMA_API|__attribute__\(\(visibility\("default"\)\)\) void) [^;(]*?((?:ckv_llama|ggml)_\w+)\(/gm,
  ),
  chunkkv_preload: names(source(...PRELOAD, "interpose.c"), /^\w[\w ]*CKVP_FN\((\w+)\)\(/gm),
};

for (const library of LIBRARIES) {
  Deno.test(`lib${library} exports its ABI and nothing else`, async () => {
    const expected = EXPECTED[library] ?? [];
    assert(expected.length > 10, `only ${expected.length} names found in the source`);
    assertEquals(await dynamicSymbols(builtLibrary(library), "defined"), expected);
  });

  Deno.test(`lib${library} wants nothing of llama.cpp at load time, so that all can be bound then`, async () => {
    const wanted = await dynamicSymbols(builtLibrary(library), "undefined");
    assertEquals(wanted.filter((name) => /^(llama|ggml|gguf|ckv|cu[A-Z]|cuda)/.test(name)), []);
    // No sockets, no other programs.
    const doors =
      /^(socket|connect|bind|listen|accept4?|send\w*|recv\w*|getaddrinfo|execv\w*|popen|system|posix_spawnp?|v?fork)$/;
    assertEquals(wanted.filter((name) => doors.test(name)), []);
    // Nothing that ends, or writes to the output of, the process that it is loaded into.
    const rude =
      /^(abort|exit|_exit|_Exit|quick_exit|printf|puts|putchar|perror|__assert_fail|raise)$/;
    assertEquals(wanted.filter((name) => rude.test(name)), []);
    assert(wanted.includes("__stack_chk_fail"), "no stack protector");
    assert(
      wanted.some((name) => /^__\w+_chk$/.test(name)),
      "no checked functions of the C library",
    );
  });

  Deno.test(`lib${library} is linked for little to be written to or run from`, async () => {
    const text = await headers(builtLibrary(library));
    assert(/GNU_RELRO/.test(text) && /BIND_NOW/.test(text), text);
    assertEquals(/GNU_STACK\s+(?:0x\w+\s+){5}(\w+)/.exec(text)?.[1], "RW", text);
    assert(!/TEXTREL|RPATH|RUNPATH|LOAD\s+(?:0x\w+\s+){5}RWE/.test(text), text);
  });
}

Deno.test("the ABI fuzzer calls every function of chunkkv.h", () => {
  const fuzzer = source("tests", "fuzz", "abi_fuzz.c") + source("tests", "fuzz", "call.c");
  const missing = EXPECTED["chunkkv"]?.filter((name) => !fuzzer.includes(`${name}(`));
  assertEquals(missing, []);
});
