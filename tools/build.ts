/**
 * `deno task build:native`: builds all C code with the tools that are there.
 *
 * @module
 */
import { buildNative } from "./native.ts";
import { explain } from "./process.ts";

try {
  await buildNative();
} catch (error) {
  console.error(explain(error));
  Deno.exit(1);
}
