/**
 * What `chunkkv.h` declares, read from its text.
 *
 * @module
 */

/** A parameter or a field: its C type and its name. */
export interface CDeclaration {
  type: string;
  name: string;
}

/** A function. */
export interface CFunction {
  name: string;
  result: string;
  parameters: CDeclaration[];
}

/** The whole header. */
export interface Header {
  abiVersion: number;
  functions: CFunction[];
  enums: Map<string, Map<string, number>>;
  structs: Map<string, CDeclaration[]>;
}

/** Splits `const float *data` into type and name; the star belongs to the type. */
function parseDeclaration(text: string): CDeclaration {
  const match = /^(.*?)\s*(\w+)$/.exec(text.trim().replaceAll(/\s+/g, " "));
  if (!match?.[1] || !match[2]) throw new Error(`Expected a declaration but found ${text}`);
  return { type: match[1], name: match[2] };
}

/** Parses the header's text. */
export function parseHeader(text: string): Header {
  const code = text.replaceAll(/\/\/.*$/gm, "");
  const functions = [...code.matchAll(/^CKV_API\s+([^;(]*?)(\w+)\s*\(([^)]*)\)\s*;/gm)]
    .map(([, result = "", name = "", parameters = ""]) => ({
      name,
      result: result.trim().replaceAll(/\s+/g, " "),
      parameters: parameters.trim() === "void" ? [] : parameters.split(",").map(parseDeclaration),
    }));
  const enums = new Map(
    [...code.matchAll(/typedef enum (\w+) \{([^}]*)\}/g)].map(([, name = "", body = ""]) => [
      name,
      new Map(
        [...body.matchAll(/(\w+)\s*=\s*(-?\d+)/g)].map(([, value = "", number]) => [
          value,
          Number(number),
        ]),
      ),
    ]),
  );
  const structs = new Map(
    [...code.matchAll(/typedef struct (\w+) \{([^}]*)\}/g)].map(([, name = "", body = ""]) => [
      name,
      body.split(";").filter((field) => field.trim()).map(parseDeclaration),
    ]),
  );
  const version = /^#define CKV_ABI_VERSION (\d+)$/m.exec(code)?.[1];
  return { abiVersion: Number(version), functions, enums, structs };
}

/** Where the header is. */
export const HEADER_URL = new URL("../../csrc/include/chunkkv.h", import.meta.url);

/** Reads and parses the header. */
export function readHeader(): Header {
  return parseHeader(Deno.readTextFileSync(HEADER_URL));
}

/** The FFI type that a parameter, result or field of a C type has. */
export function ffiType(cType: string, where: "parameter" | "result" | "field"): string {
  const scalars: Record<string, string> = {
    void: "void",
    int32_t: "i32",
    uint32_t: "u32",
    int64_t: "i64",
    float: "f32",
    double: "f64",
    ckv_status: "i32",
  };
  const scalar = scalars[cType];
  if (scalar !== undefined) return scalar;
  if (!cType.endsWith("*")) throw new Error(`Expected a known C type but found ${cType}`);
  if (where === "field" || where === "result") return "pointer";
  // Handles, texts and memory that may be a device's are addresses; all else is the caller's.
  const address = /^((const )?(ckv_context|void) \*|const char \*|float \*)$/;
  return address.test(cType) ? "pointer" : "buffer";
}
