import { assert, assertEquals } from "@std/assert";
import { smolLm2Path } from "../../tools/paths.ts";
import { Server, storyText } from "../../bench/server/server.ts";

const PROMPT = storyText(1800);
const OTHER = storyText(1800, 4000);

Deno.test("a slot saved to disk and restored is the compacted one", async () => {
  await using server = await Server.start({
    preload: { keep: 0.3 },
    args: ["-c", "2048", "-np", "1", "--cache-ram", "0"],
  });
  const first = await server.complete(PROMPT);
  const saved = await server.post("/slots/0?action=save", { filename: "slot" });
  assert(Number(saved["n_written"]) > 0);
  const expected = await server.complete(`${PROMPT}${first.content} Then`);
  await server.post("/slots/0?action=erase", {});
  await server.complete(OTHER);
  await server.post("/slots/0?action=restore", { filename: "slot" });
  const next = await server.complete(`${PROMPT}${first.content} Then`);
  assert(next.cached >= first.read, `only ${next.cached} of ${first.read} tokens were reused`);
  assertEquals(next.content, expected.content);
  await server.post("/slots/0?action=restore", { filename: "slot" });
  const edited = await server.complete(PROMPT.replace("Holmes", "Watson"));
  assertEquals(edited.cached, 0);
});

Deno.test("a prompt that comes back from the cache in RAM is the compacted one", async () => {
  await using server = await Server.start({
    preload: { keep: 0.3 },
    args: ["-c", "2048", "-np", "1", "--cache-ram", "512"],
  });
  const first = await server.complete(PROMPT);
  await server.complete(OTHER);
  const again = await server.complete(`${PROMPT}${first.content} Then`);
  assert(again.cached >= first.read, `only ${again.cached} of ${first.read} tokens were reused`);
  const edited = await server.complete(PROMPT.replace("Holmes", "Watson"));
  assertEquals(edited.cached, 0);
  assertEquals(server.stats().map((line) => line.event), Array(3).fill("compacted"));
});

Deno.test("with a draft model the answer is the one without it", async () => {
  const answers: string[] = [];
  for (const draft of [[], ["-md", smolLm2Path(), "--spec-draft-n-max", "4"]]) {
    await using server = await Server.start({
      preload: { keep: 0.3 },
      args: ["-c", "2048", "-np", "1", ...draft],
    });
    const first = await server.complete(PROMPT, { n_predict: 24 });
    const second = await server.complete(`${PROMPT}${first.content} Then`, { n_predict: 24 });
    answers.push(`${first.content} / ${second.content}`);
    assertEquals(server.stats().filter((line) => line.event === "compacted").length, 1);
  }
  assertEquals(answers[0], answers[1]);
});

Deno.test("embeddings are those of the stock server", async () => {
  const vectors: unknown[] = [];
  for (const preload of [undefined, { keep: 0.3 }]) {
    await using server = await Server.start({
      ...preload && { preload },
      args: ["-c", "2048", "--embeddings", "--pooling", "mean", "-ub", "2048", "-b", "2048"],
    });
    vectors.push(await server.post("/embedding", { content: PROMPT }));
    assertEquals(server.stats(), []);
  }
  assertEquals(vectors[0], vectors[1]);
});

Deno.test("rankings are those of the stock server", async () => {
  const scores: unknown[] = [];
  for (const preload of [undefined, { keep: 0.3, minTokens: 64 }]) {
    await using server = await Server.start({
      ...preload && { preload },
      args: ["-c", "2048", "--reranking", "-ub", "2048", "-b", "2048"],
    });
    const documents = [storyText(600), storyText(900, 3000)];
    const { results } = await server.post("/v1/rerank", { query: "Who is he?", documents });
    scores.push(results);
    assertEquals(server.stats(), []);
  }
  assertEquals((scores[0] as unknown[]).length, 2);
  assertEquals(scores[0], scores[1]);
});

Deno.test("settings that make no sense: the server runs on untouched and says so", async () => {
  await using server = await Server.start({ preload: { keep: 7 }, args: ["-c", "2048"] });
  const { content } = await server.complete(PROMPT);
  assert(content.length > 0);
  assertEquals(server.stats(), []);
  assertEquals(server.said.length, 1, server.log.slice(0, 600));
  assert(server.said[0]?.includes('CHUNKKV_KEEP to be above 0 and at most 1 but found "7"'));
});
