/**
 * `ffi/` against `chunkkv.h`: a function, a parameter, a field or an enum value that differs is red.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  ABI_VERSION,
  CHUNK_REDUCES,
  COPY_KINDS,
  DEVICES,
  DTYPES,
  FILLS,
  ISAS,
  METHODS,
} from "../../ffi/enums.ts";
import { STATUS } from "../../ffi/status.ts";
import { STRUCTS } from "../../ffi/structs.ts";
import { symbols } from "../../ffi/symbols.ts";
import { ffiType, parseHeader, readHeader } from "./header.ts";

const header = readHeader();

interface AnySymbol {
  name?: string;
  nonblocking?: boolean;
  parameters: readonly string[];
  result: string;
}

const table: [string, AnySymbol][] = Object.entries(symbols);
const blocking = table.filter(([, symbol]) => !symbol.nonblocking);
const nonblocking = table.filter(([, symbol]) => symbol.nonblocking);

Deno.test("the header parser finds what a header declares", () => {
  const { functions, enums, structs, abiVersion } = parseHeader(`
    #define CKV_ABI_VERSION 7
    // CKV_API void commented_out(void);
    typedef enum e { A = -1, B = 2 } e;
    typedef struct s { int32_t a; const float *b; } s;
CKV_API const char *f(int64_t count,
                      ckv_context **context);
  `.replaceAll(/^ {4}/gm, ""));
  assertEquals(abiVersion, 7);
  assertEquals(functions, [{
    name: "f",
    result: "const char *",
    parameters: [{ type: "int64_t", name: "count" }, { type: "ckv_context **", name: "context" }],
  }]);
  assertEquals([...enums.get("e") ?? []], [["A", -1], ["B", 2]]);
  assertEquals(structs.get("s"), [
    { type: "int32_t", name: "a" },
    { type: "const float *", name: "b" },
  ]);
});

Deno.test("symbols.ts has the header's functions, in its order", () => {
  assert(header.functions.length >= 20, "the header parser lost functions");
  assertEquals(blocking.map(([name]) => name), header.functions.map(({ name }) => name));
});

Deno.test("symbols.ts has the header's parameter and result types", () => {
  for (const { name, result, parameters } of header.functions) {
    const symbol = Object.fromEntries(blocking)[name];
    assertEquals(
      symbol?.parameters,
      parameters.map(({ type }) => ffiType(type, "parameter")),
      `parameters of ${name}`,
    );
    assertEquals(symbol?.result, ffiType(result, "result"), `result of ${name}`);
  }
});

Deno.test("symbols.ts comments each parameter with its C type and name", () => {
  const text = Deno.readTextFileSync(new URL("../../ffi/symbols.ts", import.meta.url));
  const shared = new Map(
    [...text.matchAll(/^const (\w+) = \{([\s\S]*?)^\} as const;/gm)]
      .map(([, name, body]) => [name, body ?? ""]),
  );
  const entries = new Map(
    text.slice(text.indexOf("export const symbols")).split(/^ {2}(?=ckv_)/m)
      .map((entry) => [/^\w+/.exec(entry)?.[0], entry]),
  );
  for (const { name, parameters } of header.functions) {
    const entry = entries.get(name) ?? "";
    const body = shared.get(/^\w+: (\w+),/.exec(entry)?.[1] ?? "") ?? entry;
    assertEquals(
      [...body.matchAll(/\/\* (.*?) \*\/ "/g)].map(([, comment]) => comment),
      parameters.map(({ type, name }) => type.endsWith("*") ? `${type}${name}` : `${type} ${name}`),
      `comments of ${name}`,
    );
  }
});

// These neither compute nor wait for a device's work.
const AT_ONCE = [
  "ckv_context_set_stream",
  "ckv_context_set_workspace",
  "ckv_device_alloc",
  "ckv_device_free",
  "ckv_workspace_best",
  "ckv_workspace_size",
];

Deno.test("every call that takes time has a nonblocking twin of the same signature", () => {
  const stages = header.functions
    .filter(({ name, result, parameters }) =>
      result === "ckv_status" && parameters[0]?.type === "ckv_context *" && !AT_ONCE.includes(name)
    )
    .map(({ name }) => name);
  assertEquals(nonblocking.map(([, symbol]) => symbol.name), stages);
  for (const [alias, { name, parameters, result }] of nonblocking) {
    assertEquals(alias, `${name}_async`);
    const twin = Object.fromEntries(blocking)[name ?? ""];
    assertEquals({ parameters, result }, { parameters: twin?.parameters, result: twin?.result });
  }
});

Deno.test("structs.ts has the header's structs, with its fields in order and of its types", () => {
  assertEquals(STRUCTS.map(({ name }) => name), [...header.structs.keys()]);
  for (const { name, fields } of STRUCTS) {
    assertEquals(
      [...fields].map(([field, { type }]) => [field, type]),
      header.structs.get(name)?.map((field) => [field.name, ffiType(field.type, "field")]),
      `fields of ${name}`,
    );
  }
});

const ENUMS: [name: string, prefix: string, values: Record<string, number>][] = [
  ["ckv_status", "CKV_ERROR_", STATUS],
  ["ckv_dtype", "CKV_", DTYPES],
  ["ckv_device", "CKV_", DEVICES],
  ["ckv_isa", "CKV_ISA_", ISAS],
  ["ckv_method", "CKV_METHOD_", METHODS],
  ["ckv_chunk_reduce", "CKV_REDUCE_", CHUNK_REDUCES],
  ["ckv_fill", "CKV_FILL_", FILLS],
  ["ckv_copy_kind", "CKV_COPY_", COPY_KINDS],
];

Deno.test("enums.ts has the header's enums, with its values in order", () => {
  assertEquals(ENUMS.map(([name]) => name), [...header.enums.keys()]);
  assertEquals(ABI_VERSION, header.abiVersion);
  for (const [name, prefix, values] of ENUMS) {
    assertEquals(
      Object.entries(values).map(([value, number]) => [
        value === "ok" ? "CKV_OK" : prefix + value.toUpperCase(),
        number,
      ]),
      [...header.enums.get(name) ?? []],
      name,
    );
  }
});
