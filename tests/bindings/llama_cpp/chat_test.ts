import { assertEquals } from "@std/assert";

import { type ChatMessage, Conversation } from "../../../bindings/llama_cpp/chat.ts";

/** A template that trims, as many do. */
function render(messages: readonly ChatMessage[]): string {
  return messages.map(({ role, content }) => `<${role}>${content.trim()}</${role}>`).join("") +
    "<assistant>";
}

Deno.test("a first turn is all of it", () => {
  const { text } = new Conversation(render).next([{ role: "user", content: "a" }]);
  assertEquals(text, "<user>a</user><assistant>");
});

Deno.test("a later turn is what follows the reply", () => {
  const conversation = new Conversation(render);
  conversation.next([{ role: "user", content: "a" }]).accept();
  conversation.hear("re");
  conversation.hear("ply ");
  const { text, accept } = conversation.next([{ role: "user", content: "b" }]);
  assertEquals(text, "</assistant><user>b</user><assistant>");
  accept();
  assertEquals(
    conversation.next([{ role: "user", content: "c" }]).text,
    "</assistant><user>c</user><assistant>",
  );
});

Deno.test("a turn that did not get in leaves the conversation as it was", () => {
  const conversation = new Conversation(render);
  conversation.next([{ role: "user", content: "lost" }]);
  assertEquals(
    conversation.next([{ role: "user", content: "a" }]).text,
    "<user>a</user><assistant>",
  );
});

Deno.test("a template that rewrites the past gets the new messages alone", () => {
  const last = (messages: readonly ChatMessage[]) => `${messages.length}:${render(messages)}`;
  const conversation = new Conversation(last);
  conversation.next([{ role: "user", content: "a" }]).accept();
  assertEquals(
    conversation.next([{ role: "user", content: "b" }]).text,
    "1:<user>b</user><assistant>",
  );
});
