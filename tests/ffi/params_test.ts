/**
 * Methods, their settings, and what is wrong with a wrong one.
 *
 * @module
 */
import {
  budgetFor,
  chunkKv,
  ChunkKvError,
  type Dtype,
  full,
  h2o,
  layerBudget,
  methodByName,
  methodNames,
  pyramidKv,
  rowBytes,
  snapKv,
  streamingLlm,
} from "chunkkv";
import { assertEquals, assertThrows } from "@std/assert";
import { CHUNK_REDUCES, DTYPES, FILLS, ISAS, METHODS } from "../../ffi/enums.ts";
import { native, readText } from "../../ffi/library.ts";
import { packParams } from "../../ffi/params.ts";
import { STATUS, unwrap } from "../../ffi/status.ts";
import { packStruct, PARAMS, readField } from "../../ffi/structs.ts";

function refuses(run: () => unknown, includes: string): void {
  const error = assertThrows(run, ChunkKvError, includes);
  assertEquals(error.code, "invalid_argument");
}

Deno.test("methods refuse settings out of their range, saying expected and found", () => {
  refuses(() => chunkKv({ chunkSize: 0 }), "Expected chunkSize to be an integer of at least 1");
  refuses(() => chunkKv({ chunkSize: 1.5 }), "but found 1.5");
  refuses(() => chunkKv({ chunkSize: NaN }), "but found NaN");
  refuses(() => chunkKv({ window: 0 }), "window to be an integer from 1 to 64 but found 0");
  refuses(() => chunkKv({ window: 65 }), "but found 65");
  refuses(() => chunkKv({ reuse: 0 }), "reuse");
  refuses(() => chunkKv({ spread: 0 }), "spread to be an integer from 1 to 64 but found 0");
  refuses(() => chunkKv({ spread: 65 }), "but found 65");
  refuses(() => chunkKv({ reduce: "median" as "mean" }), 'sum, mean, max but found "median"');
  refuses(() => chunkKv({ fill: "some" as "none" }), "fill to be one of exact, none");
  refuses(() => snapKv({ poolSize: 4 }), "poolSize to be odd but found 4");
  refuses(() => snapKv({ poolSize: -1 }), "poolSize");
  refuses(() => snapKv({ window: 1e9 }), "window");
  refuses(() => streamingLlm({ sinks: -1 }), "sinks to be an integer of at least 0 but found -1");
  refuses(() => pyramidKv({ poolSize: 4 }), "poolSize to be odd but found 4");
  refuses(() => layerBudget(h2o(), 0, 9, 0, 1), "budget");
  refuses(
    () => layerBudget(pyramidKv(), 9, 9, 2, 2),
    "layer to be an integer from 0 to 1 but found 2",
  );
  refuses(() => methodByName("chunk_kv"), 'snapkv, chunkkv, h2o, pyramidkv but found "chunk');
  refuses(() => methodByName("toString"), "method");
});

Deno.test("budgetFor() takes budget or keep, one of them", () => {
  assertEquals(budgetFor(chunkKv(), { budget: 7 }, 100), 7);
  assertEquals(budgetFor(chunkKv(), { keep: 1 }, 100), 100);
  assertEquals(budgetFor(chunkKv(), { keep: 0.001 }, 100), 1);
  assertEquals(budgetFor(full(), {}, 100), 100);
  refuses(() => budgetFor(chunkKv(), {}, 100), "budget or keep for chunkkv");
  refuses(() => budgetFor(chunkKv(), { budget: 7, keep: 0.5 }, 100), "one of budget and keep");
  for (const keep of [0, -0.1, 1.0001, NaN, Infinity]) {
    refuses(() => budgetFor(chunkKv(), { keep }, 100), `at most 1 but found ${keep}`);
  }
  for (const budget of [0, -1, 0.5, NaN, 2 ** 31]) {
    refuses(() => budgetFor(chunkKv(), { budget }, 100), `but found ${budget}`);
  }
});

Deno.test("budgetFor() takes floor(keep * kvLen), and 0.7 of 100 is 70", () => {
  for (const [keep, kvLen, budget] of [[0.7, 100, 70], [0.1, 25, 2], [0.29, 100, 29]] as const) {
    assertEquals(budgetFor(chunkKv(), { keep }, kvLen), budget);
  }
});

Deno.test("packParams() of chunkKv() is what the library calls the default", () => {
  const fromC = packStruct(PARAMS, {});
  native().ckv_default_params(fromC);
  const packed = packParams(chunkKv(), 1);
  for (const [name] of PARAMS.fields) {
    if (name === "budget") continue;
    assertEquals(readField(PARAMS, packed, name), readField(PARAMS, fromC, name), name);
  }
});

Deno.test("packParams() puts each setting into its field", () => {
  const method = chunkKv({
    ...{ chunkSize: 3, window: 4, reduce: "max", fill: "none", reuse: 5, spread: 7 } as const,
  });
  const packed = packParams(method, 6, { scale: 0.25, logitSoftcap: 50 });
  const expected = {
    method: METHODS.chunkkv,
    budget: 6,
    window: 4,
    chunk_size: 3,
    chunk_reduce: CHUNK_REDUCES.max,
    fill: FILLS.none,
    layer_reuse: 5,
    scale: 0.25,
    logit_softcap: 50,
    spread: 7,
  } as const;
  for (const [name, value] of Object.entries(expected)) {
    assertEquals(readField(PARAMS, packed, name as keyof typeof expected), value, name);
  }
  assertEquals(readField(PARAMS, packParams(streamingLlm({ sinks: 9 }), 1), "num_sinks"), 9);
  const snap = packParams(snapKv({ window: 8, poolSize: 7 }), 1);
  assertEquals(readField(PARAMS, snap, "window"), 8);
  assertEquals(readField(PARAMS, snap, "pool_size"), 7);
  const pyramid = packParams(methodByName("pyramidkv", { window: 8, poolSize: 7 }), 1);
  assertEquals(readField(PARAMS, pyramid, "method"), METHODS.pyramidkv);
  assertEquals(readField(PARAMS, pyramid, "window"), 8);
  assertEquals(readField(PARAMS, pyramid, "pool_size"), 7);
  assertEquals(readField(PARAMS, packParams(methodByName("h2o"), 1), "method"), METHODS.h2o);
  for (const scale of [-1, NaN, Infinity]) {
    refuses(() => packParams(method, 6, { scale }), "scale to be a finite number");
    refuses(() => packParams(method, 6, { logitSoftcap: scale }), "logitSoftcap");
  }
});

Deno.test("names are the library's own", () => {
  const { ckv_method_name, ckv_dtype_name, ckv_isa_name, ckv_status_name } = native();
  for (const name of methodNames()) assertEquals(readText(ckv_method_name(METHODS[name])), name);
  assertEquals(readText(ckv_method_name(methodNames().length)), undefined);
  for (const [name, number] of Object.entries(DTYPES)) {
    assertEquals(readText(ckv_dtype_name(number)), name);
  }
  for (const [name, number] of Object.entries(ISAS)) {
    if (number >= 0) assertEquals(readText(ckv_isa_name(number)), name);
  }
  for (const [name, number] of Object.entries(STATUS)) {
    assertEquals(readText(ckv_status_name(number)), name);
  }
});

Deno.test("rowBytes() is the library's ckv_row_bytes()", () => {
  for (const [name, number] of Object.entries(DTYPES)) {
    for (const elements of [32, 64, 96, 128]) {
      assertEquals(
        BigInt(rowBytes(name as Dtype, elements)),
        native().ckv_row_bytes(number, elements),
      );
    }
  }
  refuses(() => rowBytes("q8_0", 40), "multiple of 32 for q8_0 but found 40");
  refuses(() => rowBytes("f64" as Dtype, 40), "dtype to be one of");
});

Deno.test("unwrap() makes a typed error of every status", () => {
  unwrap(STATUS.ok, "not read");
  for (const [name, number] of Object.entries(STATUS)) {
    if (name === "ok") continue;
    const error = assertThrows(() => unwrap(number, () => "the text"), ChunkKvError, "the text");
    assertEquals<string>(error.code, name);
  }
  assertEquals(assertThrows(() => unwrap(99, ""), ChunkKvError, "99").code, "internal");
});
