/**
 * The cache before and after a compression and the logits after it, as hashes: to be the same on one
 * GPU and on several. Prompts are random tokens, so any model will do.
 *
 *     CUDA_VISIBLE_DEVICES=0,1 deno run --allow-read --allow-env --allow-ffi \
 *       bench/engine/devices.ts --model model.gguf --gpu-layers=-1 --tokens 8000
 *
 * @module
 */
import { createHash } from "node:crypto";
import { parseArgs } from "node:util";

import { type CompressOptions, type KvType, LlamaModel } from "chunkkv/llama-cpp";
import { randomTokens } from "./random_tokens.ts";

const METHODS: readonly CompressOptions[] = [
  { method: "chunkkv", keep: 0.1 },
  { method: "chunkkv", keep: 0.2, reuse: 2 },
  { method: "snapkv", keep: 0.1 },
];

const { values: options } = parseArgs({
  args: Deno.args,
  options: {
    model: { type: "string" },
    "gpu-layers": { type: "string", default: "-1" },
    tokens: { type: "string", default: "8000" },
    kv: { type: "string", default: "f16,q8_0" },
  },
});
if (options.model === undefined) throw new Error("Expected --model FILE");

function hash(data: Uint8Array | Float32Array): string {
  return createHash("sha256").update(data).digest("hex").slice(0, 16);
}

using model = await LlamaModel.load(options.model, { gpuLayers: Number(options["gpu-layers"]) });
const length = Number(options.tokens);
const prompt = randomTokens(length, model.info.vocabSize);
for (const kvType of options.kv.split(",") as KvType[]) {
  using context = model.createContext({
    contextSize: length + 256,
    batchSize: 2048,
    microBatchSize: 512,
    kvType,
  });
  for (const method of METHODS) {
    context.clear();
    await context.prefill(prompt);
    const full = hash(context.saveState());
    const { after } = context.compress(method);
    const kept = hash(context.saveState());
    await context.prefill(prompt.subarray(0, 1));
    const logits = hash(context.logits());
    console.log(
      JSON.stringify({ kv: kvType, ...method, tokens: length, after, full, kept, logits }),
    );
  }
}
