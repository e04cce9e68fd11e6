/**
 * A host of its own kind: reads 700 tokens into a context and prints what the cache holds.
 *
 * @module
 */
import { LlamaModel } from "chunkkv/llama-cpp";
import { smolLm2 } from "../bindings/llama_cpp/models.ts";
import { storyTokens } from "../bindings/llama_cpp/prompts.ts";

using model = await LlamaModel.load(smolLm2());
using context = model.createContext({ contextSize: 1024, threads: 1 });
await context.prefill(storyTokens(model, 700));
console.log(`${context.tokenCount()} tokens in ${context.cellCount()} cells`);
