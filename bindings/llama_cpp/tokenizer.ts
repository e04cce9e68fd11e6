/**
 * Texts to tokens and back.
 *
 * @module
 */
import { check } from "../../ffi/status.ts";
import { bridge, fetchBytes, type Handle } from "./native.ts";

/** How {@linkcode LlamaTokenizer.tokenize} reads a text. */
export interface TokenizeOptions {
  /** Whether to put in what the model wants around a text, such as a token that begins it. @default {false} */
  addSpecial?: boolean;
  /** Whether texts such as `<|im_end|>` become their control tokens. @default {true} */
  parseSpecial?: boolean;
}

/** How {@linkcode LlamaTokenizer.detokenize} writes tokens. */
export interface DetokenizeOptions {
  /** Whether control tokens are written out. @default {false} */
  withSpecial?: boolean;
}

/** A model's vocabulary. */
export class LlamaTokenizer {
  readonly #model: Handle;
  /** Tokens that the model knows. */
  readonly vocabSize: number;

  /**
   * Internal: `LlamaModel.tokenizer` is the way to one.
   *
   * @param model A loaded model.
   * @param vocabSize Tokens that it knows.
   */
  constructor(model: Handle, vocabSize: number) {
    this.#model = model;
    this.vocabSize = vocabSize;
  }

  /**
   * Splits a text into tokens.
   *
   * @param text The text.
   * @param options How to read it.
   * @returns The tokens.
   * @throws {ChunkKvError} `invalid_argument` if the text is too long to count its tokens.
   */
  tokenize(text: string, options: TokenizeOptions = {}): Int32Array<ArrayBuffer> {
    const { addSpecial = false, parseSpecial = true } = options;
    const bytes = new TextEncoder().encode(text);
    const read = (tokens: Int32Array<ArrayBuffer>) =>
      bridge().ckv_llama_tokenize(
        this.#model.pointer,
        bytes,
        bytes.length,
        Number(addSpecial),
        Number(parseSpecial),
        tokens,
        tokens.length,
      );
    let tokens = new Int32Array(bytes.length + 8);
    let count = read(tokens);
    if (count > tokens.length) {
      tokens = new Int32Array(count);
      count = read(tokens);
    }
    check(
      count >= 0,
      "a text of at most 2^31 tokens, and a model that has a vocabulary",
      `${bytes.length} bytes`,
    );
    return tokens.slice(0, count);
  }

  /**
   * Joins tokens to a text. Bytes that are no whole character become U+FFFD.
   *
   * @param tokens The tokens.
   * @param options How to write them.
   * @returns The text.
   * @throws {ChunkKvError} `invalid_argument` if one of them is not in the vocabulary.
   */
  detokenize(tokens: ArrayLike<number>, options: DetokenizeOptions = {}): string {
    const checked = checkTokens(tokens, this.vocabSize);
    const bytes = fetchBytes(
      (buffer) =>
        bridge().ckv_llama_detokenize(
          this.#model.pointer,
          checked,
          checked.length,
          Number(options.withSpecial ?? false),
          buffer,
          buffer.length,
        ),
      8 * checked.length + 16,
    );
    check(typeof bytes !== "number", "tokens that make a text", "others");
    return new TextDecoder().decode(bytes);
  }

  /**
   * The bytes of one token: part of a text, and not always a whole character.
   *
   * @param token The token.
   * @param options How to write it.
   * @returns Its bytes, UTF-8 if they are whole characters.
   * @throws {ChunkKvError} `invalid_argument` if it is not in the vocabulary.
   */
  piece(token: number, options: DetokenizeOptions = {}): Uint8Array<ArrayBuffer> {
    checkToken(token, this.vocabSize);
    const bytes = fetchBytes((buffer) =>
      bridge().ckv_llama_token_piece(
        this.#model.pointer,
        token,
        Number(options.withSpecial ?? false),
        buffer,
        buffer.length,
      ), 64);
    check(typeof bytes !== "number", `a token below ${this.vocabSize}`, token);
    return bytes;
  }

  /**
   * Whether a token ends a generation, such as that for the end of a turn.
   *
   * @param token The token.
   * @returns Whether it does.
   */
  isEndOfGeneration(token: number): boolean {
    return bridge().ckv_llama_is_end_of_generation(this.#model.pointer, token) === 1;
  }
}

/**
 * Tokens as the engine takes them.
 *
 * @param tokens The tokens.
 * @param vocabSize Tokens that the model knows.
 * @returns The tokens, copied unless they are an `Int32Array`.
 * @throws {ChunkKvError} `invalid_argument` if one of them is not in the vocabulary.
 */
export function checkTokens(
  tokens: ArrayLike<number>,
  vocabSize: number,
): Int32Array<ArrayBuffer> {
  for (let i = 0; i < tokens.length; i++) checkToken(tokens[i] ?? NaN, vocabSize);
  return tokens instanceof Int32Array && tokens.buffer instanceof ArrayBuffer
    ? tokens as Int32Array<ArrayBuffer>
    : Int32Array.from(tokens);
}

function checkToken(token: number, vocabSize: number): void {
  check(
    Number.isInteger(token) && token >= 0 && token < vocabSize,
    `a token from 0 to ${vocabSize - 1}`,
    token,
  );
}
