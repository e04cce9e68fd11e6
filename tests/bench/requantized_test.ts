import { assert } from "@std/assert";
import { LlamaModel } from "chunkkv/llama-cpp";
import { klDivergence, logSoftmax } from "../../bench/metrics/divergence.ts";
import { smolLm2Path, smolLm2Q8Path } from "../../tools/paths.ts";

const TEXT =
  "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is";

async function distributions(path: string): Promise<Float64Array[]> {
  using model = await LlamaModel.load(path);
  const tokens = model.tokenizer.tokenize(TEXT);
  const { vocabSize } = model.tokenizer;
  using context = model.createContext({ contextSize: 64 });
  await context.prefill(tokens.subarray(0, 1));
  const logits = await context.score(tokens.subarray(1));
  return Array.from(
    { length: tokens.length - 1 },
    (_, i) => logSoftmax(logits.subarray(i * vocabSize, (i + 1) * vocabSize)),
  );
}

Deno.test("SmolLM2 in Q8_0 says what it says in Q4_1", async () => {
  const [given, made] = [await distributions(smolLm2Path()), await distributions(smolLm2Q8Path())];
  for (const [i, row] of given.entries()) {
    const kl = klDivergence(row, made[i]!);
    assert(kl > 0 && kl < 0.03, `Expected a small divergence after token ${i} but found ${kl}`);
  }
});
