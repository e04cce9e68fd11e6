import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { preloadEnvironment, type PreloadSettings } from "chunkkv/llama-cpp";
import { fileURLToPath } from "node:url";

import { type StatsLine, storyText } from "../../bench/server/server.ts";
import { nodeLlamaCpp } from "../../tools/node_llama.ts";
import { smolLm2Path } from "../../tools/paths.ts";

/** What the script prints. */
interface Chat {
  release: string;
  turns: { answer: string; read: number; tokens: number }[];
}

interface Ended extends Chat {
  stats: StatsLine[];
  /** Lines that the preloaded library has said. */
  said: string[];
}

const SCRIPT = fileURLToPath(new URL("node_host/chat.mjs", import.meta.url));

// Versions of node-llama-cpp, and the release of llama.cpp that each brings.
const NEWEST = ["3.22.1", "v0.5.0"] as const;
const OLDEST = ["3.19.1", "b10068"] as const;

/** A chat of two turns in Node, with the preloaded library if there are settings for it. */
async function chat(version: string, preload?: PreloadSettings): Promise<Ended> {
  const host = await nodeLlamaCpp(version);
  const folder = await Deno.makeTempDir({ prefix: "chunkkv-" });
  try {
    const text = `${folder}/text`;
    await Deno.writeTextFile(text, storyText(4800));
    const stats = `${folder}/stats`;
    const ended = await new Deno.Command("node", {
      args: [SCRIPT, host, smolLm2Path(), text],
      env: preload ? preloadEnvironment({ threads: 1, ...preload, stats }) : {},
      stdin: "null",
    }).output();
    const decoder = new TextDecoder();
    const stderr = decoder.decode(ended.stderr);
    assertEquals(ended.code, 0, stderr);
    const said = stderr.match(/chunkkv: .*/g) ?? [];
    return { ...JSON.parse(decoder.decode(ended.stdout)), stats: readStats(stats), said };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function readStats(path: string): StatsLine[] {
  try {
    const lines = Deno.readTextFileSync(path).trimEnd().split("\n");
    return lines.map((line) => JSON.parse(line));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

for (const [version, release] of [NEWEST, OLDEST]) {
  Deno.test(`node-llama-cpp ${version}: a chat goes on from the compacted cache`, async () => {
    const stock = await chat(version);
    assertEquals([stock.release, stock.turns.length, stock.said], [release, 2, []]);

    const whole = await chat(version, { keep: 1 });
    assertEquals(whole.turns, stock.turns);
    assertEquals([whole.stats, whole.said], [[], []]);

    const compacted = await chat(version, { keep: 0.3 });
    const [first, second] = compacted.turns;
    assert(first && second, "two turns were expected");
    const [line] = compacted.stats;
    assertEquals(compacted.stats.map(({ event }) => event), ["compacted"]);
    assert(line && line.before >= 1100 && line.before <= 1300, `${line?.before} tokens were read`);
    // The token that starts the text is in the cache, but is no input of the host's.
    assert(Math.abs(line.before - first.read) <= 1, `${line.before}, but ${first.read} were read`);
    assertEquals(line.after, Math.floor(0.3 * line.before));
    assertEquals(compacted.said.length, 1, compacted.said.join("\n"));
    assert(compacted.said[0]?.includes(`${line.before} -> ${line.after} tokens in the cache`));

    assert(first.answer.length > 0 && second.answer.length > 0, "an answer is empty");
    assert(second.read < 40, `${second.read} tokens were read again`);
    assert(second.tokens > first.tokens);
    // The answers are from a cache that has lost most of the text.
    assertNotEquals(compacted.turns, stock.turns);
  });
}

Deno.test("settings that make no sense: Node's chat is untouched, and one line says so", async () => {
  const { stats, said, turns } = await chat(NEWEST[0], { keep: 2 });
  assertEquals(stats, []);
  assertEquals(said.length, 1, said.join("\n"));
  assert(said[0]?.includes('CHUNKKV_KEEP to be above 0 and at most 1 but found "2"'), said[0]);
  assertEquals(turns, (await chat(NEWEST[0])).turns);
});
