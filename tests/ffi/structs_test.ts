/**
 * Sizes and offsets of packed structs against a C compiler's.
 *
 * @module
 */
import { ChunkKvError } from "chunkkv";
import { assertEquals, assertThrows } from "@std/assert";
import {
  KEPT,
  packStruct,
  packStructs,
  PARAMS,
  readField,
  SCORES,
  STRUCTS,
} from "../../ffi/structs.ts";
import { compileC } from "./c_compiler.ts";

Deno.test("structs have the sizes and offsets that a C compiler gives them", () => {
  const lines = STRUCTS.flatMap(({ name, fields }) => [
    `printf("${name} %zu\\n", sizeof(${name}));`,
    ...[...fields.keys()].map((field) =>
      `printf("${name}.${field} %zu\\n", offsetof(${name}, ${field}));`
    ),
  ]);
  const source = `#include <stddef.h>\n#include <stdio.h>\n#include "chunkkv.h"\n` +
    `int main(void) {\n  ${lines.join("\n  ")}\n  return 0;\n}\n`;
  const folder = Deno.makeTempDirSync({ prefix: "chunkkv-structs-" });
  try {
    const program = `${folder}/layout${Deno.build.os === "windows" ? ".exe" : ""}`;
    compileC(source, program);
    const { stdout } = new Deno.Command(program).outputSync();
    const expected = STRUCTS.flatMap(({ name, size, fields }) => [
      `${name} ${size}`,
      ...[...fields].map(([field, { offset }]) => `${name}.${field} ${offset}`),
    ]);
    assertEquals(new TextDecoder().decode(stdout).trim().split(/\r?\n/), expected);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("packStruct() writes what readField() reads", () => {
  const packed = packStruct(SCORES, { batch: -1, data: 2n ** 63n + 5n, count: -(2n ** 40n) });
  assertEquals(readField(SCORES, packed, "struct_size"), SCORES.size);
  assertEquals(readField(SCORES, packed, "batch"), -1);
  assertEquals(readField(SCORES, packed, "num_heads"), 0);
  assertEquals(readField(SCORES, packed, "data"), 2n ** 63n + 5n);
  assertEquals(readField(SCORES, packed, "count"), -(2n ** 40n));
  assertEquals(readField(PARAMS, packStruct(PARAMS, { scale: 0.5 }), "scale"), 0.5);
});

Deno.test("packStructs() lays structs out one after the other", () => {
  const packed = packStructs(KEPT, [{ batch: 1 }, { batch: 2 }]);
  assertEquals(packed.length, 2 * KEPT.size);
  assertEquals(readField(KEPT, packed.subarray(KEPT.size), "batch"), 2);
});

Deno.test("packStruct() refuses values that do not fit their field", () => {
  for (const batch of [NaN, 0.5, 2 ** 31, -(2 ** 31) - 1, Infinity, 2n ** 31n]) {
    const error = assertThrows(() => packStruct(SCORES, { batch }), ChunkKvError, "Expected");
    assertEquals(error.code, "invalid_argument");
  }
  assertThrows(() => packStruct(SCORES, { count: 2n ** 63n }), ChunkKvError, "64 bits");
  assertThrows(() => packStruct(SCORES, { data: -1n }), ChunkKvError, "64 bits");
  assertThrows(() => packStruct(PARAMS, { scale: NaN }), ChunkKvError, "ckv_params.scale");
});
