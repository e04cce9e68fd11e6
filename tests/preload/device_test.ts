/**
 * The preloaded library as it is where the engine's cache is on a GPU: all memory counts as a
 * device's, which a libchunkkv_cuda on the CPU serves.
 *
 * @module
 */
import { join } from "node:path";

import { assert, assertEquals } from "@std/assert";

import { Server, storyText } from "../../bench/server/server.ts";
import { buildDir, libraryName } from "../../tools/paths.ts";

const env = {
  LD_PRELOAD: join(buildDir(), libraryName("ckv_preload_on_device")),
  CHUNKKV_CUDA_LIBRARY: join(buildDir(), libraryName("chunkkv_cuda_fake")),
};

Deno.test("prompts are compressed on a device, whole windows whatever their last batch is", async () => {
  const args = ["-c", "2048", "-np", "1", "-b", "64", "-ub", "64", "--cache-ram", "0"];
  await using device = await Server.start({ preload: { keep: 0.3 }, args, env });
  await using host = await Server.start({ preload: { keep: 0.3 }, args });
  // The last batch has any number of tokens: fewer than the window, too.
  const short = new Set<boolean>();
  for (const length of [2000, 2050, 2100, 2150]) {
    const prompt = storyText(length, 0);
    const [first, second] = [
      await device.complete(prompt, { n_predict: 12, cache_prompt: false }),
      await host.complete(prompt, { n_predict: 12, cache_prompt: false }),
    ];
    const [own, other] = [device.stats().at(-1), host.stats().at(-1)];
    assert(own && other);
    assertEquals([own.event, own.before, own.after], [other.event, other.before, other.after]);
    assertEquals([own.event, own.window, other.window], ["compacted", 32, 32]);
    const isShort = (own.before - 1) % 64 + 1 < 32;
    // Tokens that were read again are as good, but not the same to the last bit.
    if (!isShort) assertEquals(first.content, second.content);
    short.add(isShort);
  }
  assertEquals(short.size, 2, "some of the prompts should end in a short batch, and some not");
});
