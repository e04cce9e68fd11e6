/**
 * `deno task build:cuda`: installs the CUDA compiler where it is missing, and builds
 * libchunkkv_cuda and its test program.
 *
 * @module
 */
import { Command } from "commander";

import { ARCHITECTURES, buildCuda, buildCudaTest, installCudaTools } from "./cuda.ts";
import { explain } from "./process.ts";

const program = new Command("deno task build:cuda")
  .description("Builds libchunkkv_cuda, and what tests it, with nvcc from PyPI.")
  .option("--arch <names...>", `only some of ${ARCHITECTURES.join(", ")}: builds faster`)
  .parse();
const { arch } = program.opts<{ arch?: string[] }>();

const unknown = arch?.find((name) => !ARCHITECTURES.includes(name));
if (unknown !== undefined) {
  console.error(`Expected --arch to be of ${ARCHITECTURES.join(", ")} but found "${unknown}"`);
  Deno.exit(2);
}
try {
  await installCudaTools();
  await buildCuda(arch);
  await buildCudaTest();
} catch (error) {
  console.error(explain(error));
  Deno.exit(1);
}
