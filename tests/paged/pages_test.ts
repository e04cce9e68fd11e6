/**
 * Where the rows of every layout lie.
 *
 * @module
 */
import { DeviceBuffer } from "chunkkv";
import { assertEquals } from "@std/assert";
import { bytesOf, DEVICE, floatsOf } from "./device.ts";
import { HEAD_DIM, makeCache } from "./small_cache.ts";

Deno.test("views describe pages of every layout", () => {
  const row = HEAD_DIM * 2;
  const sizes = { numKvHeads: 3, blockSize: 4, numBlocks: 5, dtype: "f16" } as const;
  const strides = (layout: "nhd" | "hnd" | "fused") => {
    using cache = makeCache({ ...sizes, layout });
    const { keys, values } = cache.layer(1);
    const both = [keys, values].map(({ strideBlock, strideHead, strideToken }) =>
      [strideBlock, strideHead, strideToken].map((stride) => stride / row)
    );
    assertEquals(both[0], both[1]);
    assertEquals(cache.blockBytes, 2 * 2 * 3 * 4 * row); // layers, keys and values, heads, tokens
    return both[0];
  };
  assertEquals(strides("nhd"), [12, 1, 3]);
  assertEquals(strides("hnd"), [12, 4, 1]);
  assertEquals(strides("fused"), [24, 8, 2]);
  using cache = makeCache({ ...sizes, layout: "fused" });
  const { keys, values } = cache.layer(0);
  bytesOf(keys)[row] = 7; // a value begins right after its key
  assertEquals(bytesOf(values)[0], 7);
});

Deno.test("write() puts rows where vLLM's layouts have them", () => {
  const heads = 3, size = 4, tokens = [17, 2, -1, 63];
  // Element 0 of the row of a block, an offset in it and a head, in elements.
  const places = {
    nhd: (block: number, offset: number, head: number) => ((block * size + offset) * heads + head),
    hnd: (block: number, offset: number, head: number) => ((block * heads + head) * size + offset),
    fused: (block: number, offset: number, head: number) =>
      ((block * heads + head) * size + offset) * 2,
  };
  for (const layout of ["nhd", "hnd", "fused"] as const) {
    using cache = makeCache({ numKvHeads: heads, layout });
    const keys = Float32Array.from({ length: tokens.length * heads * HEAD_DIM }, (_, i) => i + 1);
    const values = keys.map((value) => -value);
    // On a GPU rows may come from either memory.
    const there = DEVICE === "cuda" ? DeviceBuffer.from(values) : values;
    cache.write(1, { slotMapping: tokens, keys, values: there });
    const pools = ["keys", "values"] as const;
    const [inKeys, inValues] = pools.map((kind) => {
      return floatsOf(cache.layer(1)[kind]);
    });
    const written = tokens.filter((slot) => slot >= 0).length * heads * HEAD_DIM;
    for (const pool of layout === "fused" ? [] : [inKeys!, inValues!]) {
      assertEquals(pool.filter((value) => value !== 0).length, written);
    }
    tokens.forEach((slot, i) => {
      if (slot < 0) return;
      for (let head = 0; head < heads; head++) {
        const at = places[layout](Math.floor(slot / size), slot % size, head) * HEAD_DIM;
        const row = keys.subarray((i * heads + head) * HEAD_DIM).subarray(0, HEAD_DIM);
        assertEquals(inKeys!.slice(at, at + HEAD_DIM), row.slice());
        assertEquals(inValues!.slice(at, at + HEAD_DIM), row.map((value) => -value));
      }
    });
  }
});
