/**
 * A long text and a question about it, as the model's chat expects them.
 *
 * @module
 */
import type { LlamaModel } from "chunkkv/llama-cpp";

/** The prompt's tokens; the model answers next. */
export function promptTokens(
  model: LlamaModel,
  text: string,
  question: string,
): Int32Array<ArrayBuffer> {
  const content = `${text.trim()}\n\n${question.trim()}`;
  const prompt = model.chatTemplate === undefined
    // A base model completes; a question mark alone would be continued with more questions.
    ? `${content}\nAnswer:`
    : model.applyChatTemplate([{ role: "user", content }]);
  return model.tokenizer.tokenize(prompt);
}
