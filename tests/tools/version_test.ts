import { assertEquals } from "@std/assert";
import { join } from "node:path";

import config from "../../deno.json" with { type: "json" };
import { repoRoot } from "../../tools/paths.ts";

/** Where else the version stands, and what is around it. */
const PLACES: Record<string, RegExp> = {
  "csrc/CMakeLists.txt": /^project\(chunkkv VERSION (\S+) /m,
  "csrc/src/abi.c": /^#define CKV_VERSION_STRING "(.+)"$/m,
  "csrc/include/chunkkv.h": /ckv_version\(void\);\s+\/\/ "(.+)"$/m,
  "bindings/vllm/src/chunkkv_vllm/__init__.py": /^__version__ = "(.+)"$/m,
  "CHANGELOG.md": /^## (\d\S*)/m,
};

for (const [path, pattern] of Object.entries(PLACES)) {
  Deno.test(`${path} has the version of deno.json`, () => {
    const text = Deno.readTextFileSync(join(repoRoot(), path));
    assertEquals(pattern.exec(text)?.[1], config.version);
  });
}
