import { assertEquals } from "@std/assert";
import fc from "fast-check";

import { TextStream } from "../../../bindings/llama_cpp/text_stream.ts";

const encoder = new TextEncoder();

/** The plain rule: grow the text by one character until it ends with a stop text. */
function upToFirstStop(text: string, given: string[]): string {
  for (let end = 1; end <= text.length; end++) {
    const lengths = given.filter((stop) => stop && text.slice(0, end).endsWith(stop))
      .map((stop) => stop.length);
    if (lengths.length > 0) return text.slice(0, end - Math.max(...lengths));
  }
  return text;
}

/** What comes out when a text goes in by parts of its bytes. */
function streamed(text: string, size: number, stops: string[] = []): string[] {
  const stream = new TextStream(stops);
  const bytes = encoder.encode(text);
  const pieces: string[] = [];
  for (let at = 0; at < bytes.length; at += size) {
    pieces.push(stream.push(bytes.slice(at, at + size)));
  }
  pieces.push(stream.end());
  return pieces;
}

Deno.test("TextStream hands out whole characters only", () => {
  assertEquals(streamed("a漢🦙", 1), ["a", "", "", "漢", "", "", "", "🦙", ""]);
  assertEquals(streamed("漢", 2).join(""), "漢");
});

Deno.test("TextStream writes bytes that are no character as U+FFFD", () => {
  const stream = new TextStream();
  assertEquals(stream.push(Uint8Array.of(0xe6, 0xbc)) + stream.end(), "\ufffd");
});

Deno.test("TextStream ends before the first stop text, and holds back what may begin one", () => {
  assertEquals(streamed("one END two", 1, ["END"]).join(""), "one ");
  assertEquals(streamed("EN", 1, ["END"]), ["", "", "EN"]);
  assertEquals(streamed("ENEND", 1, ["END"]).join(""), "EN");
  assertEquals(streamed("abc", 3, ["c", "b"]).join(""), "a");
});

Deno.test("TextStream stops at the stop text that is complete first", () => {
  assertEquals(streamed("bac", 1, ["a", "bac"]).join(""), "b");
  assertEquals(streamed("bac", 9, ["a", "bac"]).join(""), "b");
  assertEquals(streamed("bac", 1, ["ac", "bac"]).join(""), "");
});

Deno.test("TextStream gives the text up to the first stop text, however it is cut", () => {
  const texts = fc.string({ unit: fc.constantFrom("a", "b", "é", "🦙"), maxLength: 30 });
  const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "é"), maxLength: 4 }), {
    maxLength: 3,
  });
  fc.assert(
    fc.property(texts, stops, fc.integer({ min: 1, max: 5 }), (text, given, size) => {
      assertEquals(streamed(text, size, given).join(""), upToFirstStop(text, given));
    }),
    { numRuns: 2000 },
  );
});
