import { join } from "node:path";

import { assertEquals, assertRejects } from "@std/assert";

import { IntegrityError, verifyIntegrity } from "../../tools/integrity.ts";
import { PACKAGE, unpackRelease } from "../../tools/llama_release.ts";
import { exists, llamaIncludeDir } from "../../tools/paths.ts";
import { withFolder } from "./scratch.ts";

Deno.test("verifyIntegrity() accepts the digest of the file's bytes", async () => {
  await withFolder(async (folder) => {
    const file = join(folder, "abc");
    Deno.writeTextFileSync(file, "abc");
    // SHA-512 of "abc", FIPS 180-4.
    const digest =
      "3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==";
    await verifyIntegrity(file, `sha512-${digest}`);
    Deno.writeTextFileSync(file, "abd");
    await assertRejects(() => verifyIntegrity(file, `sha512-${digest}`), IntegrityError, "found");
  });
});

Deno.test("unpackRelease() rejects another tarball and leaves nothing", async () => {
  await withFolder(async (folder) => {
    const target = join(folder, "llama.cpp");
    const unpacking = unpackRelease(target, (scratch) => {
      const tarball = join(scratch, "package.tgz");
      Deno.writeTextFileSync(tarball, "not the package");
      return Promise.resolve(tarball);
    });
    await assertRejects(() => unpacking, IntegrityError, PACKAGE.integrity);
    assertEquals([...Deno.readDirSync(folder)], []);
  });
});

Deno.test("the headers that setup unpacked include each other", () => {
  const folder = llamaIncludeDir();
  const seen = new Set<string>();
  const visit = (name: string) => {
    if (seen.has(name)) return;
    seen.add(name);
    const text = Deno.readTextFileSync(join(folder, name));
    for (const [, next] of text.matchAll(/^#include "(.+)"/gm)) visit(next ?? "");
  };
  visit("llama.h");
  assertEquals(exists(join(folder, "ggml-cpu.h")), true);
  assertEquals(seen.has("ggml.h"), true);
});
