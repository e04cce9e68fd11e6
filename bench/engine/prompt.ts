/**
 * A long text and a question about it, as the model's chat expects them.
 *
 * @module
 */
import type { LlamaModel } from "chunkkv/llama-cpp";

/**
 * The prompt's tokens; the model answers next.
 *
 * @param model Who answers.
 * @param text What it reads.
 * @param question What it is asked.
 * @param answerStart Words put in its mouth: small models answer where they would ramble.
 */
export function promptTokens(
  model: LlamaModel,
  text: string,
  question: string,
  answerStart: string,
): Int32Array<ArrayBuffer> {
  const content = `${text.trim()}\n\n${question.trim()}`;
  const prompt = model.chatTemplate === undefined
    // A base model completes; a question mark alone would be continued with more questions.
    ? `${content}\nAnswer:`
    : model.applyChatTemplate([{ role: "user", content }]);
  const space = model.chatTemplate === undefined && answerStart ? " " : "";
  return model.tokenizer.tokenize(prompt + space + answerStart.trim());
}
