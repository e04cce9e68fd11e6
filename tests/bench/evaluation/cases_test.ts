import { assertEquals } from "@std/assert";
import { compressOptions } from "../../../bench/evaluation/cases.ts";

const CHUNKKV = { method: "chunkkv", keep: 0.3, reuse: 1 };

Deno.test("a prompt shorter than a chunk is one chunk", () => {
  const settings = { window: [32] };
  const short = { method: "chunkkv", budget: 2, window: 1, reuse: 1, chunkSize: 8 };
  assertEquals(compressOptions(CHUNKKV, settings, 8), short);
  assertEquals(compressOptions({ ...CHUNKKV, chunk_size: 20 }, settings, 8), short);
  assertEquals(compressOptions(CHUNKKV, { ...settings, chunkSize: [5] }, 8).chunkSize, 5);
  assertEquals(compressOptions(CHUNKKV, settings, 10).chunkSize, undefined);
});

Deno.test("a window takes at most half of what is kept", () => {
  assertEquals(compressOptions(CHUNKKV, { window: [32] }, 100).window, 15);
  assertEquals(compressOptions(CHUNKKV, { window: [8] }, 100).window, 8);
});
