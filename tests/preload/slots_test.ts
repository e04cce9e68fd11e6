import { assert, assertEquals } from "@std/assert";

import { type Completion, Server, storyText } from "../../bench/server/server.ts";

const PROMPTS = [0, 2600, 5200, 7800].map((from) => storyText(1800, from));

function askAll(server: Server): Promise<Completion[]> {
  return Promise.all(PROMPTS.map((prompt) => server.complete(prompt, { n_predict: 24 })));
}

/** Four prompts at once, each of which is compressed and goes on from its own cache. */
async function checkSlots(server: Server): Promise<void> {
  const answers = await askAll(server);
  const compactions = server.stats();
  assertEquals(compactions.map((line) => line.event), Array(4).fill("compacted"));
  assertEquals(new Set(compactions.map((line) => line.sequence)).size, 4);
  for (const { before, after } of compactions) assertEquals(after, Math.floor(0.3 * before));
  for (const [i, prompt] of PROMPTS.entries()) {
    const { content = "", read = 0 } = answers[i] ?? {};
    assert(content.length > 0);
    const next = await server.complete(`${prompt}${content} Then`, { n_predict: 4 });
    assert(next.cached >= read, `slot ${i}: only ${next.cached} of ${read} tokens were reused`);
  }
}

Deno.test("slots that share one cache are compressed side by side", async () => {
  await using server = await Server.start({
    preload: { keep: 0.3 },
    args: ["-c", "4096", "-np", "4", "--kv-unified", "-b", "256", "-ub", "64"],
  });
  await checkSlots(server);
});

Deno.test("slots with a part of the cache each are compressed side by side", async () => {
  await using server = await Server.start({
    preload: { keep: 0.3 },
    args: ["-c", "4096", "-np", "4", "--no-kv-unified", "-b", "256", "-ub", "64"],
  });
  await checkSlots(server);
  // Alone, a prompt keeps as many tokens and is answered alike.
  await using alone = await Server.start({
    preload: { keep: 0.3 },
    args: ["-c", "1024", "-np", "1", "-b", "256", "-ub", "64"],
  });
  const single = await alone.complete(PROMPTS[2] ?? "", { n_predict: 6 });
  const more = { n_predict: 6, id_slot: 3, cache_prompt: false };
  const again = await server.complete(PROMPTS[2] ?? "", more);
  assertEquals(again.content, single.content);
});

Deno.test("several completions of one prompt share its cells, which nobody overwrites", async () => {
  await using server = await Server.start({
    preload: { keep: 0.3 },
    args: ["-c", "4096", "-np", "4", "--kv-unified"],
  });
  const prompt = PROMPTS[0] ?? "";
  const chat = {
    messages: [{ role: "user", content: prompt }],
    max_tokens: 24,
    temperature: 0,
    n: 3,
  };
  const answer = await server.post("/v1/chat/completions", chat);
  const texts = (answer["choices"] as { message: { content: string } }[])
    .map(({ message }) => message.content);
  assertEquals(texts.length, 3);
  assertEquals(new Set(texts).size, 1);
  // Alone, the prompt is answered in the same way.
  await using alone = await Server.start({ preload: { keep: 0.3 }, args: ["-c", "4096"] });
  const single = await alone.chat([{ role: "user", content: prompt }], { max_tokens: 24 });
  assertEquals(single.content.slice(0, 40), texts[0]?.slice(0, 40));
});

Deno.test("a context that shifts goes on shifting after compression", async () => {
  await using server = await Server.start({
    preload: { keep: 0.4 },
    args: ["-c", "640", "-np", "1", "--context-shift"],
  });
  const { generated } = await server.complete(PROMPTS[0] ?? "", {
    n_predict: 320,
    ignore_eos: true,
  });
  assertEquals(generated, 320);
  assertEquals(server.stats().map((line) => line.event), ["compacted"]);
  assert(server.log.includes("context shift"), "the context was never shifted");
  // A new prompt after it is served from scratch.
  const next = await server.complete(PROMPTS[1] ?? "");
  assert(next.content.length > 0);
});

Deno.test("requests that are cancelled leave a server that goes on", async () => {
  await using server = await Server.start({
    preload: { keep: 0.3 },
    args: ["-c", "4096", "-np", "2", "--kv-unified", "-b", "128"],
  });
  for (const delay of [200, 900, 2500]) {
    const signal = AbortSignal.timeout(delay);
    const outcome = await server.complete(PROMPTS[1] ?? "", { n_predict: 500 }, signal)
      .then(() => "answered", (error) => error.name);
    assertEquals(outcome, "TimeoutError");
  }
  const { content } = await server.complete(PROMPTS[1] ?? "");
  assert(content.length > 0);
  assert(server.stats().some((line) => line.event === "compacted"));
});

Deno.test("long generations are compressed to the decode budget", async () => {
  await using server = await Server.start({
    preload: { keep: 1, decodeBudget: 200, decodeSlack: 64 },
    args: ["-c", "2048", "-np", "1"],
  });
  await server.complete("Once upon a time", { n_predict: 500, ignore_eos: true });
  const compactions = server.stats();
  assert(compactions.length >= 3, `${compactions.length} compactions`);
  for (const line of compactions) {
    assertEquals([line.while, line.after], ["generating", 200]);
    assert(line.before >= 264 && line.before < 270, `compacted at ${line.before} tokens`);
  }
});
