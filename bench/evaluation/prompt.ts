/**
 * An example as the tokens that a model reads.
 *
 * @module
 */
import type { LlamaModel } from "chunkkv/llama-cpp";
import { type Example, promptText } from "../tasks/example.ts";

/** A prompt in tokens. */
export interface EvaluationPrompt {
  readonly tokens: Int32Array<ArrayBuffer>;
  /** Tokens before the question. */
  readonly contextLength: number;
}

/**
 * Tokenizes an example, the text before the question and the rest apart: so the tokens are the same
 * whether the cache is compressed after the question or before it.
 *
 * @param model Who reads. With a chat template, what the user says is written with it; without one
 * the text is continued.
 * @param example What it reads.
 * @throws {Error} If the chat template changes the text in a way that hides where the question is.
 */
export function evaluationPrompt(model: LlamaModel, example: Example): EvaluationPrompt {
  const { instructionBefore = "", context, instructionAfter = "", answerStart = "" } = example;
  const content = promptText(example);
  const isChat = example.chat && model.chatTemplate !== undefined;
  const text = isChat ? model.applyChatTemplate([{ role: "user", content }]) : content;
  const start = text.indexOf(content);
  if (start < 0) {
    throw new Error(`Expected the chat template to keep the text of ${example.id} but it did not`);
  }
  const separator = isChat || answerStart === "" || /\s$/.test(text) ? "" : "\n";
  // Space before the question belongs to it: tokens of words begin with their space.
  const beforeQuestion = (instructionBefore + context + instructionAfter).trimEnd();
  const split = start + beforeQuestion.length;
  const { tokenizer } = model;
  const head = tokenizer.tokenize(text.slice(0, split), { addSpecial: true });
  const tail = tokenizer.tokenize(text.slice(split) + separator + answerStart);
  const tokens = new Int32Array(head.length + tail.length);
  tokens.set(head);
  tokens.set(tail, head.length);
  return { tokens, contextLength: head.length };
}
