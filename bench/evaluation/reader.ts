/**
 * Reads prompts into sequence 0 of a context, what they share only once.
 *
 * @module
 */
import type { LlamaContext, LlamaSnapshot } from "chunkkv/llama-cpp";
import { branchPoints, commonPrefix, type Tokens } from "./prefixes.ts";

/** Reads a list of prompts in its order. */
export class PromptReader implements Disposable {
  readonly #context: LlamaContext;
  readonly #prompts: readonly Tokens[];
  /** Beginnings of the prompt that was read last, by rising length. */
  readonly #kept: LlamaSnapshot[] = [];
  #last: Tokens = new Int32Array();
  #index = 0;

  /**
   * @param context Where they go.
   * @param prompts Ordered by `compareTokens`; what is read must be one of them, and none is read
   * after a later one.
   */
  constructor(context: LlamaContext, prompts: readonly Tokens[]) {
    this.#context = context;
    this.#prompts = prompts;
  }

  /**
   * Fills the sequence with the first `length` tokens of a prompt.
   *
   * @param index The prompt's place in the list.
   * @param length Tokens to read; at least one.
   * @returns Tokens that were computed, the others having been there, and seconds that it took.
   */
  async read(
    index: number,
    length: number,
    options: { signal?: AbortSignal; onRead?: (tokens: number) => void } = {},
  ): Promise<{ computed: number; seconds: number }> {
    const prompt = this.#prompts[index]!;
    const begin = performance.now();
    this.#forgetBranches(
      index < this.#index ? 0 : Math.min(commonPrefix(this.#last, prompt), length),
    );
    this.#last = prompt;
    this.#index = index;
    const base = this.#kept.at(-1);
    if (base) this.#context.restore(base);
    else this.#context.clear();
    const start = base?.tokenCount ?? 0;
    const points = branchPoints(this.#prompts, index, start).filter((point) => point <= length);
    for (const point of points) {
      await this.#continue(prompt, point, start, options);
      this.#kept.push(this.#context.snapshot());
    }
    await this.#continue(prompt, length, start, options);
    return { computed: length - start, seconds: (performance.now() - begin) / 1000 };
  }

  async #continue(
    prompt: Tokens,
    to: number,
    start: number,
    { signal, onRead }: { signal?: AbortSignal; onRead?: (tokens: number) => void },
  ): Promise<void> {
    const from = this.#context.tokenCount();
    if (to <= from) return;
    await this.#context.prefill(prompt.subarray(from, to), {
      onProgress: ({ done }) => onRead?.(from - start + done),
      ...(signal ? { signal } : {}),
    });
  }

  /** Frees beginnings that are longer than what the next prompt shares. */
  #forgetBranches(shared: number): void {
    while ((this.#kept.at(-1)?.tokenCount ?? 0) > shared) this.#kept.pop()?.[Symbol.dispose]();
  }

  /** Frees what is kept. */
  [Symbol.dispose](): void {
    this.#forgetBranches(0);
  }
}
