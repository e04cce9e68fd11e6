import { assert, assertEquals } from "@std/assert";
import { LlamaModel } from "chunkkv/llama-cpp";
import { evaluationPrompt } from "../../../bench/evaluation/prompt.ts";
import type { Example } from "../../../bench/tasks/example.ts";
import { gemma3, smolLm2 } from "../../bindings/llama_cpp/models.ts";

const EXAMPLE: Example = {
  id: "1",
  task: "needle",
  instructionBefore: "Read this.\n\n",
  context: "The number is 5.\0\n",
  instructionAfter: "\n\n",
  question: "What is the number?",
  answerStart: "The number is",
  chat: true,
  answers: ["5"],
  reference: " 5",
  maxTokens: 4,
  metric: "needle",
};

/** The prompt's text, and what of it comes before the question. */
async function texts(path: string, example: Example): Promise<[string, string]> {
  using model = await LlamaModel.load(path);
  const { tokens, contextLength } = evaluationPrompt(model, example);
  const text = (end?: number) =>
    model.tokenizer.detokenize(tokens.subarray(0, end), { withSpecial: true });
  return [text(), text(contextLength)];
}

Deno.test("a model for chat reads its template around the words, zero characters and all", async () => {
  const [text, before] = await texts(smolLm2(), EXAMPLE);
  const turn = "<|im_start|>user\nRead this.\n\nThe number is 5.\0";
  assert(before.endsWith(turn), before);
  assertEquals(
    text.slice(before.length),
    "\n\n\nWhat is the number?<|im_end|>\n<|im_start|>assistant\nThe number is",
  );
});

Deno.test("text to be completed is read as it is, byte for byte", async () => {
  const { answerStart: _, ...rest } = EXAMPLE;
  const [text] = await texts(smolLm2(), { ...rest, chat: false, question: "Next line:\n" });
  assertEquals(text, "Read this.\n\nThe number is 5.\0\n\n\nNext line:\n");
});

Deno.test("a model without a template begins its answer in a line of its own", async () => {
  const [text, before] = await texts(gemma3(), EXAMPLE);
  assertEquals(before, "<bos>Read this.\n\nThe number is 5.\0");
  assertEquals(text.slice(before.length), "\n\n\nWhat is the number?\nThe number is");
});
