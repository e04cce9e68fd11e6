import { assert, assertEquals } from "@std/assert";
import { LlamaModel } from "chunkkv/llama-cpp";
import { branchPoints, commonPrefix, compareTokens } from "../../../bench/evaluation/prefixes.ts";
import { PromptReader } from "../../../bench/evaluation/reader.ts";
import { assertSameBits } from "../../bindings/llama_cpp/compare.ts";
import { gemma3, THREADS } from "../../bindings/llama_cpp/models.ts";
import { storyTokens } from "../../bindings/llama_cpp/prompts.ts";

/** A prompt whose tokens are 1 but for those at some places. */
function prompt(length: number, ...others: number[]): Int32Array<ArrayBuffer> {
  return Int32Array.from({ length }, (_, i) => others.includes(i) ? 2 : 1);
}

Deno.test("prompts that begin alike become neighbours", () => {
  const prompts = [prompt(9, 2), prompt(5), prompt(9, 7), prompt(9, 2, 8), prompt(9)];
  const sorted = prompts.toSorted(compareTokens);
  assertEquals(sorted.map((tokens) => tokens.join("")), [
    "11111",
    "111111111",
    "111111121",
    "112111111",
    "112111112",
  ]);
  assertEquals(commonPrefix(prompts[0]!, prompts[3]!), 8);
  assertEquals(commonPrefix(prompts[1]!, prompts[4]!), 5);
});

Deno.test("reading pauses where later prompts part, and only where that saves something", () => {
  const prompts = [prompt(900), prompt(900, 800), prompt(900, 300), prompt(900, 20)];
  assertEquals(branchPoints(prompts, 0, 0), [300, 800]);
  // What is kept already need not be kept again.
  assertEquals(branchPoints(prompts, 1, 300), []);
  assertEquals(branchPoints(prompts, 3, 0), []);
  // The last token is always read: what follows it is wanted.
  assertEquals(branchPoints([prompt(100), prompt(100)], 0, 0), [99]);
});

Deno.test("a prompt read from a shared beginning is as if read alone", async () => {
  using model = await LlamaModel.load(gemma3());
  const shared = storyTokens(model, 700); // more than the sliding window of 512
  const prompts = [0, 1, 2].map((i) => {
    const own = storyTokens(model, 60, 50 + i);
    const kept = shared.subarray(0, i === 2 ? 300 : 700);
    return Int32Array.of(...kept, ...own);
  }).sort(compareTokens);
  using context = model.createContext({ contextSize: 1024, threads: THREADS });
  using alone = model.createContext({ contextSize: 1024, threads: THREADS, batchSize: 512 });
  using reader = new PromptReader(context, prompts);
  let computed = 0;
  for (const [i, tokens] of prompts.entries()) {
    const read = await reader.read(i, tokens.length);
    computed += read.computed;
    assertEquals(context.tokenCount(), tokens.length);
    // Batches as long as the reader's, so that the bits are the same.
    alone.clear();
    const parting = [...new Set(prompts.map((other) => commonPrefix(other, tokens)))]
      .sort((a, b) => a - b);
    for (let from = 0, k = 0; k < parting.length; from = parting[k++]!) {
      await alone.prefill(tokens.subarray(from, parting[k]));
    }
    assertSameBits(context.logits(), alone.logits(), `prompt ${i}`);
  }
  const all = prompts.reduce((sum, tokens) => sum + tokens.length, 0);
  // One of the two that share 700 tokens read them, and the third 300 of those.
  assert(
    all - computed > 900,
    `Expected to save more than 900 of ${all} tokens but read ${computed}`,
  );
});
