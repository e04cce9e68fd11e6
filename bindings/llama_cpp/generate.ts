/**
 * Text, token by token.
 *
 * @module
 */
import { check, STATUS } from "../../ffi/status.ts";
import { abortable, busy, throwIfAborted } from "./abort.ts";
import type { ContextHandle } from "./context_handle.ts";
import { checkSequence } from "./integers.ts";
import { bridge, type Handle } from "./native.ts";
import { makeSampler, type SamplingOptions } from "./sampler.ts";
import { TextStream } from "./text_stream.ts";
import type { LlamaTokenizer } from "./tokenizer.ts";

/** Settings of a generation. */
export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to generate. @default {until the model ends} */
  maxTokens?: number;
  /** Texts that end the generation; they are not part of what is generated. */
  stop?: readonly string[];
  /** Which sequence. @default {0} */
  sequence?: number;
  /** Stops it; what has been generated so far stays in the cache. */
  signal?: AbortSignal;
}

/** How a generation ended; what its iterator returns. */
export interface GenerateResult {
  /** `end`: the model ended; `length`: `maxTokens` were generated; `stop`: a stop text came. */
  readonly reason: "end" | "length" | "stop";
  /** The tokens that were generated, all of them in the cache. */
  readonly tokens: readonly number[];
}

/** What {@linkcode generate} needs of a context. */
export interface Generator {
  readonly model: Handle;
  readonly context: ContextHandle;
  readonly tokenizer: LlamaTokenizer;
  /** Called with each piece, before it is handed out. */
  readonly onPiece: (piece: string) => void;
}

/**
 * Generates text from where a sequence ends, each token on another thread.
 *
 * @param generator The context.
 * @param options Settings.
 * @returns Pieces of text, whole characters each.
 * @throws {ChunkKvError} `cancelled`, `invalid_argument`, or why the engine refused.
 */
export async function* generate(
  generator: Generator,
  options: GenerateOptions,
): AsyncGenerator<string, GenerateResult, void> {
  const { maxTokens = Infinity, stop = [], sequence = 0, signal } = options;
  const { context, tokenizer, onPiece } = generator;
  check(
    maxTokens === Infinity || (Number.isInteger(maxTokens) && maxTokens >= 0),
    "maxTokens to be an integer of at least 0",
    maxTokens,
  );
  checkSequence(sequence);
  const native = bridge();
  const sampler = makeSampler(generator.model, options);
  const text = new TextStream(stop);
  const tokens: number[] = [];
  const token = new Int32Array(1);
  const isEnd = new Int32Array(1);
  const step = () =>
    context.run((pointer) =>
      native.ckv_llama_generate_step_async(pointer, sequence, sampler.pointer, token, isEnd)
    );
  let reason: GenerateResult["reason"] = "length";
  try {
    while (tokens.length < maxTokens) {
      throwIfAborted(signal);
      if (context.isRunning) throw busy();
      // Between tokens the signal knows nothing of the generator, which may be dropped there.
      const status = await abortable(signal, () => context.cancel(), step);
      if (status === STATUS.cancelled) throwIfAborted(signal);
      context.unwrap(status);
      if (isEnd[0]) {
        reason = "end";
        break;
      }
      tokens.push(token[0] ?? -1);
      const piece = text.push(tokenizer.piece(token[0] ?? -1));
      if (piece) {
        onPiece(piece);
        yield piece;
      }
      if (text.isStopped) {
        reason = "stop";
        break;
      }
    }
    const rest = text.end();
    if (rest) {
      onPiece(rest);
      yield rest;
    }
    return { reason, tokens };
  } finally {
    sampler.dispose();
  }
}
