/**
 * Text in several sequences at once.
 *
 * @module
 */
import { check, STATUS } from "../../ffi/status.ts";
import { abortable, busy, throwIfAborted } from "./abort.ts";
import type { GenerateOptions, GenerateResult, Generator } from "./generate.ts";
import { checkSequence } from "./integers.ts";
import { bridge, type Handle } from "./native.ts";
import { makeSampler } from "./sampler.ts";
import { TextStream } from "./text_stream.ts";

/** Settings of a generation in several sequences. */
export type GenerateEachOptions = Omit<GenerateOptions, "sequence">;

/** What was generated in one sequence. */
export interface GeneratedText extends GenerateResult {
  /** The text, without the stop text that ended it. */
  readonly text: string;
}

/** A sequence on its way. */
interface Going {
  readonly sequence: number;
  readonly sampler: Handle;
  readonly stream: TextStream;
  readonly tokens: number[];
  text: string;
  reason: GenerateResult["reason"] | undefined;
}

/**
 * Generates text in several sequences, each token of all of them in one batch.
 *
 * @param generator The context.
 * @param sequences Which sequences.
 * @param options Settings.
 * @returns For each sequence its text and how it ended.
 * @throws {ChunkKvError} `cancelled`, `invalid_argument`, or why the engine refused.
 */
export async function generateEach(
  generator: Omit<Generator, "onPiece">,
  sequences: readonly number[],
  options: GenerateEachOptions,
): Promise<GeneratedText[]> {
  const { maxTokens = Infinity, stop = [], signal } = options;
  check(
    maxTokens === Infinity || (Number.isInteger(maxTokens) && maxTokens >= 0),
    "maxTokens to be an integer of at least 0",
    maxTokens,
  );
  using samplers = new DisposableStack();
  const all = sequences.map((sequence): Going => {
    const sampler = makeSampler(generator.model, options);
    samplers.defer(() => sampler.dispose());
    return {
      sequence: checkSequence(sequence),
      sampler,
      stream: new TextStream(stop),
      tokens: [],
      text: "",
      reason: maxTokens === 0 ? "length" : undefined,
    };
  });
  for (;;) {
    const going = all.filter(({ reason }) => reason === undefined);
    if (going.length === 0) break;
    await step(generator, going, signal);
    for (const one of going) {
      if (one.reason === undefined && one.tokens.length >= maxTokens) one.reason = "length";
    }
  }
  return all.map(({ text, stream, tokens, reason }) => ({
    text: text + stream.end(),
    tokens,
    reason: reason ?? "length",
  }));
}

/** One token more in each sequence. */
async function step(
  { context, tokenizer }: Omit<Generator, "onPiece">,
  going: readonly Going[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const sequences = Int32Array.from(going, ({ sequence }) => sequence);
  const samplers = BigUint64Array.from(
    going,
    ({ sampler }) => Deno.UnsafePointer.value(sampler.pointer),
  );
  const tokens = new Int32Array(going.length);
  const areEnds = new Int32Array(going.length);
  throwIfAborted(signal);
  if (context.isRunning) throw busy();
  const status = await abortable(
    signal,
    () => context.cancel(),
    () =>
      context.run((pointer) =>
        bridge().ckv_llama_generate_step_each_async(
          pointer,
          going.length,
          sequences,
          samplers,
          tokens,
          areEnds,
        )
      ),
  );
  if (status === STATUS.cancelled) throwIfAborted(signal);
  context.unwrap(status);
  for (const [i, one] of going.entries()) {
    if (areEnds[i]) {
      one.reason = "end";
      continue;
    }
    const token = tokens[i] ?? -1;
    one.tokens.push(token);
    one.text += one.stream.push(tokenizer.piece(token));
    if (one.stream.isStopped) one.reason = "stop";
  }
}
