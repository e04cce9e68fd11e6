/**
 * Answers from compressed caches, several at once.
 *
 * @module
 */
import type { LlamaContext, LlamaModel, LlamaSnapshot } from "chunkkv/llama-cpp";
import { greedy } from "../engine/measure.ts";
import { GrowingAnswer } from "./growing_answer.ts";

/** An answer that is wanted. */
export interface AnswerRequest {
  readonly maxTokens: number;
  readonly stop: readonly string[];
  readonly onAnswer: (text: string) => void;
}

/** An answer that is wanted at once. */
export interface AnswerNowOptions {
  readonly maxTokens: number;
  readonly stop: readonly string[];
  /** Of the continuation, which begins with the answer. */
  readonly leastTokens: number;
  readonly signal?: AbortSignal;
}

interface Waiting {
  readonly request: AnswerRequest;
  readonly snapshot: LlamaSnapshot;
  readonly cells: number;
}

// More at once gain little: by then the machine computes instead of waiting for memory.
export const SEQUENCES = 8;

// Tokens after which it is looked who is done.
const ROUND = 32;

/**
 * Collects caches until they fill a batch, then lets all of them answer together in a context of its
 * own. What waits must want answers of the same length with the same stops.
 */
export class AnswerQueue implements Disposable {
  readonly #model: LlamaModel;
  readonly #settings: { cells: number; threads?: number };
  readonly #waiting: Waiting[] = [];
  #context: LlamaContext | undefined;

  /** @param settings `cells`: tokens that the waiting caches may have together, answers included. */
  constructor(model: LlamaModel, settings: { cells: number; threads?: number }) {
    this.#model = model;
    this.#settings = settings;
  }

  /** Takes over sequence 0 of a context, to be answered soon. */
  async add(from: LlamaContext, request: AnswerRequest, signal?: AbortSignal): Promise<void> {
    // Layers with sliding windows keep their cells, however few the others have.
    const sliding = Math.min(from.tokenCount(), this.#model.info.slidingWindow);
    const cells = Math.max(from.cellCount(), sliding) + request.maxTokens;
    const taken = this.#waiting.reduce((sum, one) => sum + one.cells, 0);
    if (this.#waiting.length === SEQUENCES || taken + cells > this.#settings.cells) {
      await this.finish(signal);
    }
    this.#waiting.push({ request, snapshot: from.snapshot(), cells });
  }

  /** Lets sequence 0 of a context answer at once, and go on past the answer's end. */
  async answerNow(
    from: LlamaContext,
    options: AnswerNowOptions,
  ): Promise<{ answer: Awaited<ReturnType<typeof greedy>>; continuation: number[] }> {
    const { stop, signal } = options;
    const stops = signal ? { signal } : {};
    await this.finish(signal);
    using snapshot = from.snapshot();
    const context = this.#cleared();
    context.restore(snapshot);
    const answer = await greedy(context, options.maxTokens, { stop, ...stops });
    const missing = Math.max(0, options.leastTokens - answer.tokens.length);
    const rest = await greedy(context, missing, { ignoreEnd: true, ...stops });
    return { answer, continuation: [...answer.tokens, ...rest.tokens] };
  }

  /** Answers what waits. */
  async finish(signal?: AbortSignal): Promise<void> {
    if (this.#waiting.length === 0) return;
    const context = this.#cleared();
    const { tokenizer } = this.#model;
    const answers = this.#waiting.map(({ request, snapshot }, sequence) => {
      context.restore(snapshot, { sequence });
      return new GrowingAnswer(request, sequence, (tokens) => tokenizer.detokenize(tokens));
    });
    for (let going = answers; going.length > 0;) {
      const { maxTokens, stop } = going[0]!.request;
      const most = Math.min(ROUND, maxTokens - going[0]!.tokens.length);
      const sequences = going.map(({ sequence }) => sequence);
      const texts = await context.generateEach(sequences, {
        maxTokens: most,
        stop,
        temperature: 0,
        ...(signal ? { signal } : {}),
      });
      going.forEach((answer, i) => answer.add(texts[i]!));
      going = going.filter(({ isComplete }) => !isComplete);
    }
    for (const { request, text } of answers) request.onAnswer(text);
    this.#drop();
  }

  /** The context, empty. */
  #cleared(): LlamaContext {
    const { cells, ...rest } = this.#settings;
    this.#context ??= this.#model.createContext({
      contextSize: cells,
      sequences: SEQUENCES,
      ...rest,
    });
    for (let i = 0; i < SEQUENCES; i++) this.#context.clear(i);
    return this.#context;
  }

  #drop(): void {
    for (const { snapshot } of this.#waiting.splice(0)) snapshot[Symbol.dispose]();
  }

  /** Frees the context and what waits. */
  [Symbol.dispose](): void {
    this.#drop();
    this.#context?.[Symbol.dispose]();
  }
}
