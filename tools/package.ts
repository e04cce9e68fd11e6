/**
 * `deno task package`: lays out in `dist/` what a release would hold.
 *
 * @module
 */
import { Command } from "commander";
import { join } from "node:path";

import { buildCuda, installCudaTools } from "./cuda.ts";
import { layOut } from "./package/layout.ts";
import { repoRoot } from "./paths.ts";
import { explain } from "./process.ts";

const program = new Command("deno task package")
  .description("Lays out what a release would hold: npm packages, wheels, their hashes.")
  .option("--cuda", "build libchunkkv_cuda first (installs nvcc); else it is taken where built")
  .option("--out <folder>", "where to; what is there is removed", join(repoRoot(), "dist"))
  .parse();
const { cuda, out } = program.opts<{ cuda?: boolean; out: string }>();

try {
  if (cuda) {
    await installCudaTools();
    await buildCuda();
  }
  const { gaps, failed } = await layOut(out, (line) => console.log(`-- ${line}`));
  console.log(`\nIn ${out}`);
  for (const { target, what, why } of gaps) console.log(`${target} has no ${what}: ${why}`);
  for (const { target, what, why } of failed) console.error(`FAILED ${target}, ${what}: ${why}`);
  Deno.exit(failed.length === 0 ? 0 : 1);
} catch (error) {
  console.error(explain(error));
  Deno.exit(1);
}
