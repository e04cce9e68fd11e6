/**
 * What a prompt can be given as, and the conversations that prompts belong to.
 *
 * @module
 */
import { type ChatMessage, Conversation } from "./chat.ts";
import type { LlamaModel } from "./model.ts";
import { checkTokens } from "./tokenizer.ts";

/** A text, its tokens, or chat messages. */
export type PromptInput = string | ArrayLike<number> | readonly ChatMessage[];

/** A prompt as tokens. */
export interface Prompt {
  readonly tokens: Int32Array<ArrayBuffer>;
  /** Notes that it is in the cache. */
  readonly accept: () => void;
}

/** Reads prompts of a context's sequences. */
export class PromptReader {
  readonly #model: LlamaModel;
  readonly #conversations = new Map<number, Conversation>();

  /** @param model The model that reads them. */
  constructor(model: LlamaModel) {
    this.#model = model;
  }

  /**
   * The tokens of a prompt.
   *
   * @param input The prompt.
   * @param sequence Which sequence it continues.
   * @param isFirst Whether that is empty.
   * @returns The tokens, and what to call when they are in.
   * @throws {ChunkKvError} `invalid_argument` if a token is not in the vocabulary; `unsupported` if
   * the model has no chat template that llama.cpp knows.
   */
  read(input: PromptInput, sequence: number, isFirst: boolean): Prompt {
    const { tokenizer } = this.#model;
    const forget = () => this.forget(sequence);
    if (typeof input === "string") {
      return { tokens: tokenizer.tokenize(input, { addSpecial: isFirst }), accept: forget };
    }
    if (!isMessages(input)) {
      return { tokens: checkTokens(input, tokenizer.vocabSize), accept: forget };
    }
    const known = isFirst ? undefined : this.#conversations.get(sequence);
    const conversation = known ??
      new Conversation((messages) => this.#model.applyChatTemplate(messages));
    const { text, accept } = conversation.next(input);
    return {
      tokens: tokenizer.tokenize(text, { addSpecial: isFirst }),
      accept: () => {
        accept();
        this.#conversations.set(sequence, conversation);
      },
    };
  }

  /**
   * Notes what the model says.
   *
   * @param piece Text that has been generated.
   * @param sequence In which sequence.
   */
  hear(piece: string, sequence: number): void {
    this.#conversations.get(sequence)?.hear(piece);
  }

  /**
   * Ends a conversation: the sequence has something else in it.
   *
   * @param sequence Which sequence.
   */
  forget(sequence: number): void {
    this.#conversations.delete(sequence);
  }
}

function isMessages(
  input: ArrayLike<number> | readonly ChatMessage[],
): input is readonly ChatMessage[] {
  return typeof input[0] === "object";
}
