import { join } from "node:path";

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";

import { CacheError, ensureWritable, makeWhole, sweep, withLock } from "../../tools/cache.ts";
import { exists } from "../../tools/paths.ts";
import { withFolder } from "./scratch.ts";

Deno.test("ensureWritable() makes the folder and leaves nothing in it", async () => {
  await withFolder((folder) => {
    const cache = join(folder, "a", "b");
    ensureWritable(cache);
    assertEquals([...Deno.readDirSync(cache)], []);
  });
});

Deno.test("ensureWritable() says what to do where a file is in the way", async () => {
  await withFolder((folder) => {
    const file = join(folder, "file");
    Deno.writeTextFileSync(file, "");
    const error = assertThrows(() => ensureWritable(join(file, "cache")), CacheError, file);
    assert(error.message.includes("Set CHUNKKV_CACHE to a folder that is"));
  });
});

Deno.test("makeWhole() leaves nothing behind when making fails", async () => {
  await withFolder(async (folder) => {
    const target = join(folder, "model");
    const failing = makeWhole(target, (scratch) => {
      Deno.writeTextFileSync(join(scratch, "half"), "half");
      return Promise.reject(new Error("connection lost"));
    });
    await assertRejects(() => failing, Error, "connection lost");
    assertEquals([...Deno.readDirSync(folder)], []);
  });
});

Deno.test("makeWhole() keeps the result of a faster process", async () => {
  await withFolder(async (folder) => {
    const target = join(folder, "release");
    const make = (text: string, before: Promise<void>) =>
      makeWhole(target, async (scratch) => {
        const made = join(scratch, "made");
        Deno.mkdirSync(made);
        Deno.writeTextFileSync(join(made, "text"), text);
        await before;
        return made;
      });
    const { promise, resolve } = Promise.withResolvers<void>();
    const slow = make("slow", promise);
    await make("fast", Promise.resolve());
    resolve();
    await slow;
    assertEquals(Deno.readTextFileSync(join(target, "text")), "fast");
    assertEquals([...Deno.readDirSync(folder)].map((entry) => entry.name), ["release"]);
  });
});

Deno.test("sweep() removes what a killed process left, and nothing else", async () => {
  await withFolder((folder) => {
    Deno.mkdirSync(join(folder, ".making-abc", "deep"), { recursive: true });
    Deno.writeTextFileSync(join(folder, "kept"), "");
    sweep(folder);
    assertEquals([...Deno.readDirSync(folder)].map((entry) => entry.name), ["kept"]);
    sweep(join(folder, "missing"));
  });
});

Deno.test("withLock() runs one job at a time", async () => {
  await withFolder(async (folder) => {
    const events: string[] = [];
    const job = (name: string) =>
      withLock(folder, async () => {
        events.push(`${name} in`);
        await new Promise((resolve) => setTimeout(resolve, 20));
        events.push(`${name} out`);
      });
    await Promise.all([job("a"), job("b"), job("c")]);
    for (let i = 0; i < events.length; i += 2) {
      assertEquals(events[i]?.replace("in", "out"), events[i + 1]);
    }
    assert(exists(join(folder, ".lock")));
  });
});
