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

// Stands for the user's words in a chat template, which itself cannot hold every character of them.
const PLACE = "\u{F0000}";

/**
 * Tokenizes an example, the text before the question and the rest apart: so the tokens are the same
 * whether the cache is compressed after the question or before it.
 *
 * @param model Who reads. With a chat template, what the user says is written with it; without one
 * the text is continued.
 * @param example What it reads.
 * @throws {Error} If the chat template leaves out what the user says.
 */
export function evaluationPrompt(model: LlamaModel, example: Example): EvaluationPrompt {
  const { instructionBefore = "", context, instructionAfter = "", answerStart = "" } = example;
  const content = promptText(example);
  const isChat = example.chat && model.chatTemplate !== undefined;
  const template = isChat ? model.applyChatTemplate([{ role: "user", content: PLACE }]) : PLACE;
  const start = template.indexOf(PLACE);
  if (start < 0) throw new Error("Expected a chat template that has what the user says in it");
  const after = template.slice(start + PLACE.length);
  const separator = isChat || answerStart === "" || /\s$/.test(content) ? "" : "\n";
  // Space before the question belongs to it: tokens of words begin with their space.
  const beforeQuestion = (instructionBefore + context + instructionAfter).trimEnd();
  const { tokenizer } = model;
  const head = tokenizer.tokenize(template.slice(0, start) + beforeQuestion, { addSpecial: true });
  const tail = tokenizer.tokenize(
    content.slice(beforeQuestion.length) + after + separator + answerStart,
  );
  const tokens = new Int32Array(head.length + tail.length);
  tokens.set(head);
  tokens.set(tail, head.length);
  return { tokens, contextLength: head.length };
}
