import { assertEquals } from "@std/assert";
import { cycleLength, GrowingAnswer } from "../../../bench/evaluation/growing_answer.ts";

/** An answer whose tokens are the codes of characters. */
function answer(maxTokens: number, stop: string[]): GrowingAnswer {
  const request = { maxTokens, stop, onAnswer: () => {} };
  return new GrowingAnswer(request, 0, (tokens) => String.fromCharCode(...tokens));
}

function round(text: string, reason: "length" | "end" | "stop" = "length") {
  return { text, reason, tokens: Array.from(text, (character) => character.charCodeAt(0)) };
}

Deno.test("a text repeats itself if it does so three times and for 48 tokens, to its end", () => {
  const cycle = (text: string) => cycleLength(round(text).tokens);
  assertEquals(cycle("start" + "abc".repeat(16)), 3);
  assertEquals(cycle("start" + "abc".repeat(15)), 0);
  assertEquals(cycle("x".repeat(48)), 1);
  const sentence = "twenty letters and so.";
  assertEquals(cycle("So " + sentence.repeat(3)), sentence.length);
  assertEquals(cycle("So " + sentence.repeat(3).slice(1)), 0);
  assertEquals(cycle(sentence.repeat(3) + "!"), 0);
  assertEquals(cycle(""), 0);
});

Deno.test("what repeats itself is written to the end, where the model would have stopped", () => {
  const all = answer(100, []);
  all.add(round("start"));
  assertEquals(all.isComplete, false);
  all.add(round("abc".repeat(16) + "ab"));
  assertEquals([all.isComplete, all.text], [true, ("start" + "abc".repeat(40)).slice(0, 100)]);
});

Deno.test("a stop text across two rounds ends an answer, as do its own end and its length", () => {
  const stopped = answer(50, ["\nQ:", "END"]);
  stopped.add(round(" 42.\n"));
  assertEquals(stopped.isComplete, false);
  stopped.add(round("Q: more END"));
  assertEquals([stopped.isComplete, stopped.text], [true, " 42."]);
  const ended = answer(50, ["\n"]);
  ended.add(round("Yes", "end"));
  assertEquals([ended.isComplete, ended.text], [true, "Yes"]);
  const long = answer(4, []);
  long.add(round("abcd"));
  assertEquals([long.isComplete, long.text], [true, "abcd"]);
});
