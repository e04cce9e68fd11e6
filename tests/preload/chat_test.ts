import { assert, assertEquals } from "@std/assert";

import { type Message, Server, storyText } from "../../bench/server/server.ts";

const QUESTION = "\n\nWho tells this story? Answer briefly.";

function ask(text: string): Message[] {
  return [{ role: "user", content: text + QUESTION }];
}

/** The first half is as it was: most of its tokens are gone from a compacted cache. */
function editedText(text: string): string {
  return `${text.slice(0, text.length / 2)} He paused. ${text.slice(text.length / 2)}`;
}

Deno.test("a chat goes on from the compacted cache, and an edited turn is read from scratch", async () => {
  await using server = await Server.start({
    preload: { keep: 0.3 },
    args: ["-c", "4096", "-np", "1"],
  });
  const chat = ask(storyText(3600));
  const first = await server.chat(chat);
  const [compaction] = server.stats();
  assert(compaction, "nothing was compacted");
  assertEquals(compaction.positions, first.read);
  assertEquals(compaction.before, first.read);
  assertEquals(compaction.after, Math.floor(0.3 * first.read));

  chat.push({ role: "assistant", content: first.content });
  chat.push({ role: "user", content: "And who is his friend?" });
  const second = await server.chat(chat);
  assert(second.content.length > 0);
  assert(second.cached >= first.read, `only ${second.cached} of ${first.read} tokens were reused`);
  assert(second.read < 40, `${second.read} tokens were read again`);
  assertEquals(server.stats().length, 1);

  chat[0] = { role: "user", content: editedText(storyText(3600)) + QUESTION };
  const edited = await server.chat(chat);
  assertEquals(edited.cached, 0);
  assertEquals(server.stats().length, 2);
  assert(server.said.some((line) => /sequence \d+: \d+ -> \d+ tokens in the cache/.test(line)));
});

Deno.test("with --cache-reuse, too, nothing before the tail is taken for whole", async () => {
  const text = storyText(3600);
  // Sentences are gone from the part that was compacted: what follows would be moved and used again.
  const [from, to] = [400, 900].map((at) => text.indexOf(". ", at) + 1);
  const shorter = text.slice(0, from) + text.slice(to);
  for (const preload of [undefined, { keep: 0.3 }]) {
    await using server = await Server.start({
      ...preload && { preload },
      args: ["-c", "4096", "-np", "1", "--cache-reuse", "64"],
    });
    const first = await server.chat(ask(text));
    const edited = await server.chat(ask(shorter));
    if (preload) assertEquals([edited.cached, server.stats().length], [0, 2]);
    else assert(edited.cached > first.read / 2, `stock: ${edited.cached} of ${first.read} tokens`);
    if (!preload) continue;
    await using fresh = await Server.start({ preload, args: ["-c", "4096", "-np", "1"] });
    assertEquals(edited.content, (await fresh.chat(ask(shorter))).content);
  }
});

Deno.test("a prompt whose last batch is one token is compressed, too", async () => {
  const tokens = 1025; // 1,024 and one
  await using server = await Server.start({
    preload: { keep: 0.3 },
    args: ["-c", "2048", "-np", "1", "-b", "256"],
  });
  const { tokens: all } = await server.post("/tokenize", { content: storyText(6000) }) as {
    tokens: number[];
  };
  await server.post("/completion", { prompt: all.slice(0, tokens), n_predict: 1 });
  assertEquals(server.stats().map(({ event, before }) => [event, before]), [["compacted", tokens]]);
});

Deno.test("with keep 1 every answer is the stock server's", async () => {
  const chat = ask(storyText(2400));
  const answers: string[][] = [];
  for (const preload of [undefined, { keep: 1 }]) {
    await using server = await Server.start({ ...preload && { preload }, args: ["-c", "2048"] });
    const first = await server.chat(chat, { max_tokens: 32 });
    const more: Message[] = [...chat, { role: "assistant", content: first.content }];
    more.push({ role: "user", content: "Why?" });
    const second = await server.chat(more, { max_tokens: 32 });
    answers.push([first.content, second.content]);
    assertEquals(server.stats(), []);
  }
  assertEquals(answers[0], answers[1]);
});

Deno.test("a window that lies in several batches is captured whole", async () => {
  const answers: string[] = [];
  // The same graphs of 20 tokens, so that the bits are the same, in calls of 20 to 2,048 tokens.
  for (const batch of [2048, 60, 20]) {
    await using server = await Server.start({
      preload: { keep: 0.3 },
      args: ["-c", "2048", "-np", "1", "-b", String(batch), "-ub", "20"],
    });
    const { content } = await server.chat(ask(storyText(2000)), { max_tokens: 24 });
    const [compaction] = server.stats();
    assertEquals(compaction?.after, Math.floor(0.3 * (compaction?.before ?? 0)));
    answers.push(content);
  }
  assertEquals(new Set(answers).size, 1, answers.join(" | "));
});

Deno.test("quantised keys and values are compressed", async () => {
  await using server = await Server.start({
    preload: { keep: 0.3 },
    args: ["-c", "2048", "-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on"],
  });
  const { content } = await server.chat(ask(storyText(2000)));
  assert(content.length > 0);
  assertEquals(server.stats().map((line) => line.event), ["compacted"]);
});

Deno.test("a cache without flash attention stays as it is, with one line that says so", async () => {
  await using server = await Server.start({
    preload: { keep: 0.3 },
    args: ["-c", "2048", "-fa", "off"],
  });
  const chat = ask(storyText(2000));
  const { content } = await server.chat(chat);
  await server.chat([{ role: "user", content: storyText(2000, 2000) }]);
  assert(content.length > 0);
  assertEquals(server.stats().filter((line) => line.event === "compacted"), []);
  assertEquals(server.said.filter((line) => line.includes("flash attention")).length, 1);
});

Deno.test("models with sliding windows: the global layers are compressed, chats go on", async () => {
  await using server = await Server.start({
    gemma: true,
    preload: { keep: 0.3 },
    args: ["-c", "4096", "-np", "1"],
  });
  const text = storyText(5200);
  const first = await server.complete(text);
  assertEquals(server.stats().map((line) => line.event), ["compacted"]);
  const second = await server.complete(`${text}${first.content} And then`);
  assert(second.cached >= first.read - 1, `only ${second.cached} of ${first.read} were reused`);
  const edited = await server.complete(editedText(text));
  assertEquals(edited.cached, 0);
  assertEquals(server.stats().length, 2);
});
