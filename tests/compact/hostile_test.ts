/**
 * Descriptions that lie: every call that gets one returns a status, and no byte has moved.
 *
 * @module
 */
import { usableIsas } from "chunkkv";
import { assert, assertEquals } from "@std/assert";
import { native, readText } from "../../ffi/library.ts";
import { STATUS } from "../../ffi/status.ts";
import { CONTEXT_PARAMS, LAYER, packStruct, packStructs } from "../../ffi/structs.ts";
import { assertSameBytes } from "../bytes.ts";
import { attacks } from "./hostile_attacks.ts";
import {
  call,
  type CallName,
  makeFixture,
  pack,
  type StructName,
  withContext,
} from "./hostile_fixture.ts";

const isas = usableIsas();

const CALLS: CallName[] = ["score", "chunkScores", "select", "compact", "compactTo", "compress"];

for (const isa of isas) {
  Deno.test(`descriptions that tell the truth are accepted on ${isa}`, () => {
    withContext(isa, (context) => {
      for (const name of CALLS) {
        const status = call(context, makeFixture(), name, "none", {});
        assertEquals(
          status,
          STATUS.ok,
          `${name}: ${readText(native().ckv_context_error(context))}`,
        );
        for (const struct of ["keys", "values", "to"] as const) {
          const fixture = makeFixture();
          assertEquals(call(context, fixture, name, struct, fixture.paged), STATUS.ok, name);
        }
      }
    });
  });

  Deno.test(`a description that lies is a status, and moves no byte, on ${isa}`, () => {
    const fixture = makeFixture();
    const { keys, values, to } = fixture.memory;
    const before = structuredClone({ keys, values, to });
    const list = attacks(fixture);
    withContext(isa, (context) => {
      for (const { call: name, struct, change, codes } of list) {
        const what = `${name} with ${struct} of ${Deno.inspect(change)}`;
        const status = call(context, fixture, name, struct, change);
        const found = Object.entries(STATUS).find(([, number]) => number === status)?.[0];
        assert(codes.some((one) => one === found), `${what}: ${codes.join(" or ")}, not ${found}`);
        assert(readText(native().ckv_context_error(context))?.startsWith("Expected "), what);
        assertSameBytes(keys, before.keys, `${what}, keys`);
        assertSameBytes(values, before.values, `${what}, values`);
        assertSameBytes(to, before.to, `${what}, to`);
      }
    });
    assert(list.length > 300, `${list.length} attacks`);
  });
}

Deno.test("a missing struct is a status", () => {
  withContext("serial", (context) => {
    const c = native();
    const fixture = makeFixture();
    const get = (name: StructName) => pack(fixture, name);
    const { chunks } = fixture.memory;
    const invalid = STATUS.invalid_argument;
    assertEquals(c.ckv_score(context, null, get("queries"), get("keys"), get("scores")), invalid);
    assertEquals(c.ckv_score(context, get("params"), null, get("keys"), get("scores")), invalid);
    assertEquals(c.ckv_score(context, get("params"), get("queries"), null, get("scores")), invalid);
    assertEquals(c.ckv_score(context, get("params"), get("queries"), get("keys"), null), invalid);
    assertEquals(
      c.ckv_chunk_scores(context, get("params"), null, Deno.UnsafePointer.of(chunks), 16n),
      invalid,
    );
    assertEquals(c.ckv_chunk_scores(context, get("params"), get("scores"), null, 16n), invalid);
    assertEquals(
      c.ckv_chunk_scores(context, get("params"), get("scores"), Deno.UnsafePointer.of(chunks), 11n),
      invalid,
    );
    assertEquals(c.ckv_select(context, get("params"), null, get("out")), invalid);
    assertEquals(c.ckv_select(context, get("params"), get("scores"), null), invalid);
    assertEquals(c.ckv_compact(context, null, null, get("kept")), invalid);
    assertEquals(c.ckv_compact(context, get("keys"), null, null), invalid);
    assertEquals(c.ckv_compress(context, get("params"), null, 1, get("out")), invalid);
    assertEquals(c.ckv_compress(context, get("params"), get("keys"), -1, get("out")), invalid);
    const layers = packStructs(LAYER, [{}]);
    assertEquals(c.ckv_compress(context, get("params"), layers, 1, get("out")), invalid);
    assertEquals(c.ckv_select_layers(context, get("params"), layers, 1, get("out")), invalid);
    assertEquals(c.ckv_select_layers(context, get("params"), null, 1, get("out")), invalid);
    assertEquals(c.ckv_compact_layers(context, layers, 1, get("kept")), invalid);
    assertEquals(c.ckv_compact_layers(context, null, 1, get("kept")), invalid);
    assertEquals(c.ckv_compact_layers(context, layers, 1, null), invalid);
    assertEquals(c.ckv_select(null, get("params"), get("scores"), get("out")), invalid);
  });
  assertEquals(native().ckv_context_create(null, new BigUint64Array(1)), STATUS.invalid_argument);
  assertEquals(
    native().ckv_context_create(packStruct(CONTEXT_PARAMS, {}), null),
    STATUS.invalid_argument,
  );
  native().ckv_context_free(null);
});
