/**
 * The binding against `bridge.h`: a function, a parameter or a field that differs is red.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";

import { BRIDGE_ABI_VERSION } from "../../../bindings/llama_cpp/native.ts";
import { layoutOf, packStruct, readStruct, STRUCTS } from "../../../bindings/llama_cpp/structs.ts";
import { symbols } from "../../../bindings/llama_cpp/symbols.ts";
import { compileC } from "../../ffi/c_compiler.ts";
import { parseHeader } from "../../ffi/header.ts";

const FOLDER = new URL("../../../bindings/llama_cpp/", import.meta.url);
const header = parseHeader(
  Deno.readTextFileSync(new URL("csrc/bridge.h", FOLDER))
    .replaceAll("CKV_LLAMA_API", "CKV_API")
    .replace("CKV_LLAMA_ABI_VERSION", "CKV_ABI_VERSION"),
);

interface AnySymbol {
  name?: string;
  nonblocking?: boolean;
  parameters: readonly string[];
  result: string;
}

const table: [string, AnySymbol][] = Object.entries(symbols);

const TYPES: Record<string, string> = {
  void: "void",
  int32_t: "i32",
  uint32_t: "u32",
  int64_t: "i64",
  float: "f32",
  double: "f64",
  ckv_status: "i32",
};

function ffiType(cType: string, isResult: boolean): string {
  if (!cType.endsWith("*")) return TYPES[cType] ?? cType;
  const isObject = /^(const )?ckv_llama_(engine|model|context|sampler|snapshot) \*$/.test(cType);
  return isObject || isResult ? "pointer" : "buffer";
}

Deno.test("symbols.ts has the header's functions, in its order", () => {
  assert(header.functions.length >= 40, "the header parser lost functions");
  const names = table.map(([key, { name }]) => name ?? key);
  const distinct = names.filter((name, i) => names.indexOf(name) === i);
  assertEquals(distinct, header.functions.map(({ name }) => name));
  for (const [key, { name, nonblocking }] of table) {
    assertEquals(nonblocking ? key : name, nonblocking ? `${name}_async` : undefined);
  }
});

Deno.test("symbols.ts has the header's parameter and result types", () => {
  for (const [key, { name, parameters, result }] of table) {
    const declared = header.functions.find((one) => one.name === (name ?? key));
    assertEquals(parameters, declared?.parameters.map(({ type }) => ffiType(type, false)), key);
    assertEquals(result, ffiType(declared?.result ?? "", true), key);
  }
});

Deno.test("structs.ts has the header's structs, with its fields in order and of its types", () => {
  assertEquals(Object.keys(STRUCTS), [...header.structs.keys()]);
  for (const [name, fields] of Object.entries(STRUCTS)) {
    const declared = header.structs.get(name)?.map((field) => [field.name, TYPES[field.type]]);
    assertEquals(Object.entries(fields), declared, name);
  }
  assertEquals(BRIDGE_ABI_VERSION, header.abiVersion);
});

Deno.test("structs have the sizes and offsets that a C compiler gives them", () => {
  const lines = Object.entries(STRUCTS).flatMap(([name, fields]) => [
    `printf("${name} %zu\\n", sizeof(${name}));`,
    ...Object.keys(fields).map((field) =>
      `printf("${name}.${field} %zu\\n", offsetof(${name}, ${field}));`
    ),
  ]);
  const bridge = decodeURIComponent(new URL("csrc/bridge.h", FOLDER).pathname);
  const source = `#include <stddef.h>\n#include <stdio.h>\n#include "${bridge}"\n` +
    `int main(void) {\n  ${lines.join("\n  ")}\n  return 0;\n}\n`;
  const folder = Deno.makeTempDirSync({ prefix: "chunkkv-bridge-" });
  try {
    const program = `${folder}/layout${Deno.build.os === "windows" ? ".exe" : ""}`;
    compileC(source, program);
    const { stdout } = new Deno.Command(program).outputSync();
    const expected = Object.entries(STRUCTS).flatMap(([name, fields]) => {
      const { size, offsets } = layoutOf(fields);
      return [`${name} ${size}`, ...[...offsets].map(([field, at]) => `${name}.${field} ${at}`)];
    });
    assertEquals(new TextDecoder().decode(stdout).trim().split(/\r?\n/), expected);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("packStruct() writes what readStruct() reads", () => {
  for (const fields of Object.values(STRUCTS)) {
    const values = Object.fromEntries(Object.keys(fields).map((name, i) => [name, i + 1]));
    const packed = packStruct(fields, values);
    assertEquals(readStruct(fields, packed), { ...values, struct_size: packed.length });
  }
});
