/**
 * The same sources make the same libraries, wherever they lie.
 *
 * @module
 */
import { assertEquals, assertNotEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { join } from "node:path";

import { buildNative, SOURCES } from "../../tools/native.ts";
import { libraryName, repoRoot } from "../../tools/paths.ts";
import { run } from "../../tools/process.ts";
import { LIBRARIES } from "./elf.ts";

/** Builds a copy of the sources in a folder of that name; returns the libraries' sha256. */
async function build(parent: string, name: string): Promise<string[]> {
  const root = join(parent, name);
  for (const part of SOURCES) {
    Deno.mkdirSync(join(root, part, ".."), { recursive: true });
    await run(["cp", "-r", join(repoRoot(), part), join(root, part)]);
  }
  const folder = join(root, `${name}-build`);
  await buildNative({ source: root, folder, targets: LIBRARIES, defines: ["CKV_TESTS=OFF"] });
  return LIBRARIES.map((library) => {
    const bytes = Deno.readFileSync(join(folder, libraryName(library)));
    assertEquals(new TextDecoder("latin1").decode(bytes).includes(parent), false, library);
    return createHash("sha256").update(bytes).digest("hex");
  });
}

Deno.test("two builds in two folders are the same, byte for byte", async () => {
  const parent = await Deno.makeTempDir({ prefix: "chunkkv-build-" });
  try {
    const here = await build(parent, "here");
    assertEquals(await build(parent, "somewhere-else"), here);
    assertNotEquals(here[0], here[1]);
    console.log(LIBRARIES.map((library, i) => `${library} ${here[i]}`).join("\n"));
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
});
