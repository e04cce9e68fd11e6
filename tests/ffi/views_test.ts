/**
 * Descriptions of memory, and what they refuse.
 *
 * @module
 */
import { ChunkKvError, contiguousKv, Kept, pagedKv, queryView, Scores, stridedKv } from "chunkkv";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Held, packKv } from "../../ffi/pack.ts";
import { KV_VIEW, readField } from "../../ffi/structs.ts";

const SHAPE = { numKvHeads: 2, kvLen: 10, headDim: 64 };

function refuses(run: () => unknown, includes: string): void {
  const error = assertThrows(run, ChunkKvError, includes);
  assertEquals(error.code, "invalid_argument");
}

Deno.test("a view holds the caller's own memory", () => {
  const data = new Uint16Array(2 * 10 * 64);
  const view = contiguousKv({ data, dtype: "bf16", ...SHAPE });
  assert(view.data === data);
  const held = new Held();
  const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(data));
  assertEquals(readField(KV_VIEW, packKv(view, held), "data"), address);
  assertEquals(readField(KV_VIEW, packKv(view, held), "size_bytes"), BigInt(data.byteLength));
});

Deno.test("a subarray's view begins where the subarray begins", () => {
  const data = new Float32Array(3 * 10 * 64);
  const whole = Deno.UnsafePointer.value(Deno.UnsafePointer.of(data));
  const view = contiguousKv({ data: data.subarray(64), ...SHAPE });
  assertEquals(readField(KV_VIEW, packKv(view, new Held()), "data"), whole + 256n);
});

Deno.test("an address is taken as it is", () => {
  const data = new Float32Array(2 * 10 * 64);
  const pointer = Deno.UnsafePointer.of(data);
  assert(pointer !== null);
  const view = contiguousKv({ data: { pointer, byteLength: 5120 }, dtype: "f32", ...SHAPE });
  const packed = packKv(view, new Held());
  assertEquals(readField(KV_VIEW, packed, "data"), Deno.UnsafePointer.value(pointer));
  assertEquals(readField(KV_VIEW, packed, "size_bytes"), 5120n);
});

Deno.test("contiguousKv() with room for more tokens strides over them", () => {
  const data = new Float32Array(2 * 32 * 64);
  const view = contiguousKv({ data, ...SHAPE, capacity: 32 });
  assertEquals([view.strideToken, view.strideHead, view.strideBatch], [256, 8192, 16384]);
  refuses(() => contiguousKv({ data, ...SHAPE, capacity: 9 }), "capacity");
  for (const kvLen of [-1, 1.5, NaN]) {
    refuses(() => contiguousKv({ data, ...SHAPE, kvLen, capacity: 9 }), "kvLen");
  }
});

Deno.test("element types that contradict the memory are refused", () => {
  const f32 = new Float32Array(1280);
  refuses(() => contiguousKv({ data: f32, dtype: "f16", ...SHAPE }), "dtype to be f32");
  refuses(() => contiguousKv({ data: new Uint16Array(1280), ...SHAPE }), "dtype");
  refuses(() => contiguousKv({ data: new Uint16Array(1280), dtype: "f32", ...SHAPE }), "f16 or");
  refuses(() => contiguousKv({ data: new Uint8Array(1280), ...SHAPE }), "dtype");
  refuses(
    () => contiguousKv({ data: new Uint8Array(9999), dtype: "q4_0", ...SHAPE, headDim: 40 }),
    "multiple of 32",
  );
  assertEquals(contiguousKv({ data: new Float16Array(1280), ...SHAPE }).dtype, "f16");
  assertEquals(contiguousKv({ data: new Uint8Array(5120), dtype: "f32", ...SHAPE }).dtype, "f32");
});

Deno.test("pagedKv() strides as its layout says", () => {
  const options = {
    data: new Float32Array(4 * 2 * 4 * 64),
    ...SHAPE,
    blockSize: 4,
    numBlocks: 4,
    blockTable: Int32Array.of(3, 1, 0),
  };
  const nhd = pagedKv(options);
  assertEquals([nhd.strideToken, nhd.strideHead, nhd.strideBlock], [512, 256, 2048]);
  const hnd = pagedKv({ ...options, layout: "hnd" });
  assertEquals([hnd.strideToken, hnd.strideHead, hnd.strideBlock], [256, 1024, 2048]);
  assertEquals(hnd.maxBlocks, 3);
  refuses(() => pagedKv({ ...options, blockSize: 0 }), "blockSize");
  refuses(() => pagedKv({ ...options, layout: "dhn" as "nhd" }), "layout");
});

Deno.test("arrays that are shorter than the sizes say are refused before C reads them", () => {
  const data = new Float32Array(4 * 2 * 10 * 64);
  const kvLens = Int32Array.of(10);
  refuses(
    () => packKv(contiguousKv({ data, ...SHAPE, batch: 2, kvLens }), new Held()),
    "kvLens to have at least 2 entries but found 1",
  );
  const blockTable = Int32Array.of(0, 1, 2);
  const paged = pagedKv({ data, ...SHAPE, blockSize: 4, numBlocks: 4, blockTable, maxBlocks: 4 });
  refuses(() => packKv(paged, new Held()), "blockTable to have at least 4 entries but found 3");
  const none = { ...paged, blockTable: undefined };
  refuses(() => packKv(none, new Held()), "a blockTable");
});

Deno.test("sizes that are no integers are refused", () => {
  const view = contiguousKv({ data: new Float32Array(1280), ...SHAPE });
  refuses(() => packKv({ ...view, kvLen: NaN }, new Held()), "kv_len");
  refuses(() => packKv({ ...view, strideHead: 0.5 }, new Held()), "stride_head");
  refuses(() => packKv({ ...view, batch: 2 ** 31 }, new Held()), "batch");
});

Deno.test("memory that may shrink is refused", () => {
  const buffer = new ArrayBuffer(5120, { maxByteLength: 8192 });
  const view = contiguousKv({ data: new Float32Array(buffer), ...SHAPE });
  refuses(() => packKv(view, new Held()), "resizable");
});

Deno.test("queryView() packs rows unless strides say otherwise", () => {
  const data = new Float32Array(8 * 4 * 64);
  const view = queryView({ data, numQHeads: 8, window: 4, headDim: 64 });
  assertEquals([view.strideRow, view.strideHead, view.strideBatch], [256, 1024, 8192]);
  const rows = queryView({
    data,
    numQHeads: 8,
    window: 4,
    headDim: 64,
    strideRow: 2048,
    strideHead: 256,
  });
  assertEquals([rows.strideRow, rows.strideHead], [2048, 256]);
});

Deno.test("stridedKv() of one sequence needs no batch stride", () => {
  const data = new Float32Array(1280);
  const view = stridedKv({ data, ...SHAPE, strideHead: 256, strideToken: 512 });
  assertEquals([view.batch, view.strideBatch, view.blockSize], [1, 0, 0]);
});

Deno.test("Kept.from() keeps what it was given, and refuses what does not fit", () => {
  const kept = Kept.from([[[0, 3], [1, 2]], [[5], [6]]]);
  assertEquals(kept.indices.map((sets) => sets.map((set) => [...set])), [[[0, 3], [1, 2]], [
    [5],
    [6],
  ]]);
  assertEquals([...kept.lens], [2, 1]);
  assertEquals(Kept.from([]).batch, 0);
  refuses(() => Kept.from([[[0, 3], [1]]]), "2 indices in set 1 of sequence 0 but found 1");
  refuses(() => Kept.from([[[0]], [[0], [1]]]), "1 index sets in sequence 1 but found 2");
  refuses(() => Kept.from([[[0.5]]]), "integers");
  refuses(() => kept.at(2), "sequence");
  refuses(() => kept.at(0, 2), "head");
});

Deno.test("Kept.at() serves every head where one set serves all", () => {
  const kept = Kept.from([[[1, 4]]]);
  assertEquals([...kept.at(0, 7)], [1, 4]);
});

Deno.test("Scores.at() is a view of one row, as long as its sequence", () => {
  const scores = new Scores(2, 2, 3, Int32Array.of(3, 1));
  scores.at(1, 1)[0] = 7;
  assertEquals([...scores.data], [0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0]);
  assertEquals(scores.at(1, 1).length, 1);
  refuses(() => scores.at(2), "sequence");
  refuses(() => scores.at(0, 2), "head");
  refuses(() => new Scores(1, 1, 4, undefined, new Float32Array(3)), "at least 4");
});

Deno.test("what a call held is let go of to the last, and the first failure told", () => {
  const held = new Held();
  const gone: number[] = [];
  const temporary = (number: number) => ({
    [Symbol.dispose]() {
      gone.push(number);
      if (number < 3) throw new Error(`number ${number}`);
    },
  });
  const kept = held.own(temporary(9));
  for (const number of [1, 2, 3]) held.own(temporary(number));
  assertEquals(held.disown(kept), kept);
  assertThrows(() => held.release(), Error, "number 1");
  assertEquals(gone, [1, 2, 3]);
  held.release();
  assertEquals(gone, [1, 2, 3]);
});
