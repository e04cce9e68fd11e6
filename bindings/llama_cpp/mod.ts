/**
 * ChunkKV in llama.cpp: an unmodified libllama runs a model, and a sequence's KV cache is compressed
 * in place, in every layer its own tokens.
 *
 * @example A long text, a tenth of its cache, an answer
 * ```ts
 * import { LlamaModel } from "chunkkv/llama-cpp";
 *
 * async function ask(path: string, text: string, question: string): Promise<string> {
 *   using model = await LlamaModel.load(path);
 *   using context = model.createContext({ contextSize: 8192 });
 *   await context.prefill([{ role: "user", content: `${text}\n\n${question}` }]);
 *   const { before, after } = context.compress({ keep: 0.1 });
 *   console.log(`${before} tokens, ${after} of them kept`);
 *   let answer = "";
 *   for await (const piece of context.generate({ maxTokens: 200, temperature: 0 })) answer += piece;
 *   return answer;
 * }
 *
 * console.log(typeof ask);
 * ```
 *
 * @module
 */
export { ChunkKvError, type ChunkKvErrorCode } from "../../ffi/status.ts";
export { AccumulatedAttention, type LayerAttention } from "./attention.ts";
export type { ChatMessage, ChatTemplateOptions } from "./chat.ts";
export type { CompressionReport, CompressOptions, KeptLayer, LayerIndices } from "./compression.ts";
export { LlamaContext } from "./context.ts";
export type { KvType, LlamaContextOptions } from "./context_options.ts";
export { llamaEngine, type LlamaEngineInfo } from "./engine.ts";
export { ENGINE_VARIABLE, PREBUILT_VERSION } from "./engine_path.ts";
export type { GenerateOptions, GenerateResult } from "./generate.ts";
export type { GeneratedText, GenerateEachOptions } from "./generate_each.ts";
export { LlamaModel, type LlamaModelInfo, type LlamaModelOptions } from "./model.ts";
export { BRIDGE_VARIABLE } from "./native.ts";
export type { PrefillOptions, PrefillProgress, PrefillReport } from "./prefill.ts";
export {
  PRELOAD_SETTINGS,
  preloadEnvironment,
  preloadLibraryPath,
  type PreloadSetting,
  type PreloadSettings,
} from "./preload.ts";
export type { PromptInput } from "./prompt.ts";
export type { SamplingOptions } from "./sampler.ts";
export type { ScoreOptions } from "./score.ts";
export type { LlamaSnapshot } from "./snapshot.ts";
export type { StreamingOptions } from "./streaming.ts";
export { type DetokenizeOptions, LlamaTokenizer, type TokenizeOptions } from "./tokenizer.ts";
