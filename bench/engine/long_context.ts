/**
 * Long prompts on a GPU: prefill, what compressing takes, and decoding beside a context of the kept
 * length that was never compressed, in alternating turns. Prompts are random tokens: for speed only,
 * with a model of random weights (`random_model.py`) or any other.
 *
 *     deno run --allow-read --allow-env --allow-ffi bench/engine/long_context.ts \
 *       --model model.gguf --gpu-layers=-1 --tokens 32768,131072 --kv f16,q8_0 --keep 0.1
 *
 * @module
 */
import { parseArgs } from "node:util";

import { type KvType, type LlamaContext, LlamaModel } from "chunkkv/llama-cpp";
import { decodeSeconds, median } from "./measure.ts";
import { randomTokens } from "./random_tokens.ts";

const DECODED = 64, TURNS = 6;

const { values: options } = parseArgs({
  args: Deno.args,
  options: {
    model: { type: "string" },
    "gpu-layers": { type: "string", default: "-1" },
    tokens: { type: "string", default: "32768" },
    kv: { type: "string", default: "f16" },
    keep: { type: "string", default: "0.1" },
    full: { type: "boolean", default: false },
  },
});
if (options.model === undefined) throw new Error("Expected --model FILE");

/** Tokens per second of contexts that take turns; the median turn of each. */
async function decode(contexts: LlamaContext[]): Promise<number[]> {
  const rates = contexts.map((): number[] => []);
  for (let turn = 0; turn < TURNS; turn++) {
    for (const [i, context] of contexts.entries()) {
      await decodeSeconds(context, 4); // not timed: the first graphs of a length
      rates[i]!.push(DECODED / await decodeSeconds(context, DECODED));
    }
  }
  return rates.map(median);
}

using model = await LlamaModel.load(options.model, { gpuLayers: Number(options["gpu-layers"]) });
for (const kvType of options.kv.split(",") as KvType[]) {
  for (const length of options.tokens.split(",").map(Number)) {
    const prompt = randomTokens(length, model.info.vocabSize);
    const settings = { batchSize: 2048, microBatchSize: 512, kvType };
    using context = model.createContext({ ...settings, contextSize: length + 1024 });
    // The first steps of the engine and of the kernels load code.
    await context.prefill(prompt.subarray(0, Math.min(2048, length)));
    const first = context.compress({ keep: Number(options.keep) });
    await decodeSeconds(context, 4);
    context.remove(0);
    const { milliseconds } = await context.prefill(prompt);
    const report = context.compress({ keep: Number(options.keep) });
    using native = model.createContext({ ...settings, contextSize: report.after + 1024 });
    await native.prefill(prompt.subarray(0, report.after));
    const [rate, nativeRate] = await decode([context, native]);
    console.log(JSON.stringify({
      kv: kvType,
      tokens: length,
      kept: report.after,
      prefill_s: milliseconds / 1000,
      prefill_tps: length / milliseconds * 1000,
      first_ms: first.milliseconds,
      compress_ms: report.milliseconds,
      select_ms: report.selectMilliseconds,
      compact_ms: report.compactMilliseconds,
      of_prefill: report.milliseconds / milliseconds,
      decode_tps: rate,
      native_tps: nativeRate,
      of_native: rate! / nativeRate!,
    }));
    if (!options.full) continue;
    context.remove(0);
    await context.prefill(prompt);
    const [fullRate] = await decode([context]);
    console.log(JSON.stringify({ kv: kvType, tokens: length, full_tps: fullRate }));
  }
}
