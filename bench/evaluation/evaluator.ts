/**
 * One example after the other: the prompt is read once, then every method starts from it.
 *
 * @module
 */
import type { KeptLayer, LlamaContext, LlamaModel, LlamaSnapshot } from "chunkkv/llama-cpp";
import { score } from "../metrics/score.ts";
import type { Example } from "../tasks/example.ts";
import { AnswerQueue, SEQUENCES } from "./answers.ts";
import { type Case, type CaseSettings, compressOptions, FULL } from "./cases.ts";
import { type LogitRows, logLikelihood } from "./likelihood.ts";
import type { EvaluationPrompt } from "./prompt.ts";
import { PromptReader } from "./reader.ts";
import { type Answered, completed, saysTheSame } from "./reference.ts";
import { layerSimilarity } from "./similarity.ts";
import type { ExampleRow } from "./rows.ts";

/** How examples are evaluated. */
export interface EvaluationSettings extends CaseSettings {
  /** Whether the cache is compressed when the question is in it, or before. */
  readonly question: "in" | "after";
  /** With `after`: read as the observation window, then taken out again. */
  readonly queryText?: string;
  /** Tokens of the full cache's continuation that `kl` is the mean over. */
  readonly klTokens: number;
  /** Most tokens of a reference answer that `nll` is the mean over. */
  readonly nllTokens: number;
  /** Whether compressed caches are asked for answers; without, only `kl` and `nll` are measured. */
  readonly answers: boolean;
  /** Whether rows hold what the model said. */
  readonly storesAnswers: boolean;
  /** Whether rows hold how alike layers choose. */
  readonly comparesLayers?: boolean;
  readonly threads?: number;
  /** Whether a method (`h2o`) needs the attention of all queries, added up while they are read. */
  readonly accumulatesAttention?: boolean;
}

/** An example with its tokens. */
export interface Task {
  readonly example: Example;
  readonly prompt: EvaluationPrompt;
}

/** Who is told what. */
export interface EvaluationEvents {
  signal?: AbortSignal;
  /** Tokens of the prompt that have been computed. */
  onRead?: (tokens: number) => void;
}

/** Owns the contexts that examples are evaluated in. */
export class Evaluator implements Disposable {
  readonly #model: LlamaModel;
  readonly #tasks: readonly Task[];
  readonly #settings: EvaluationSettings;
  readonly #query: Int32Array<ArrayBuffer>;
  readonly #context: LlamaContext;
  readonly #reader: PromptReader;
  readonly #answers: AnswerQueue;

  /**
   * @param model The model.
   * @param tasks What is evaluated, ordered by `compareTokens` of their prompts.
   * @param settings How.
   */
  constructor(model: LlamaModel, tasks: readonly Task[], settings: EvaluationSettings) {
    this.#model = model;
    this.#tasks = tasks;
    this.#settings = settings;
    this.#query = model.tokenizer.tokenize(settings.queryText ?? "");
    const contextSize = Math.max(
      ...tasks.map(({ prompt, example }) =>
        prompt.tokens.length + this.#query.length + roomAfter(example, settings)
      ),
    );
    const threads = settings.threads === undefined ? {} : { threads: settings.threads };
    const scoreBatchSize = Math.max(settings.klTokens, settings.nllTokens, 1);
    this.#context = model.createContext({
      contextSize,
      batchSize: Math.max(512, scoreBatchSize),
      scoreBatchSize,
      accumulateAttention: settings.accumulatesAttention ?? false,
      ...threads,
    });
    this.#reader = new PromptReader(this.#context, tasks.map(({ prompt }) => prompt.tokens));
    // Compressed caches are short: what a batch needs room for are sliding windows and answers.
    const longestAnswer = Math.max(...tasks.map(({ example }) => example.maxTokens));
    const sliding = SEQUENCES * Math.min(model.info.slidingWindow, contextSize);
    const cells = Math.max(contextSize, sliding) + SEQUENCES * longestAnswer;
    this.#answers = new AnswerQueue(model, { cells, ...threads });
  }

  /**
   * Evaluates one example.
   *
   * @param index Its place in the list; rising from call to call.
   * @param cases What to compare with the full cache.
   * @returns The full cache's row, then one for each case.
   */
  async evaluate(
    index: number,
    cases: readonly Case[],
    events: EvaluationEvents = {},
  ): Promise<ExampleRow[]> {
    const { example, prompt } = this.#tasks[index]!;
    const cut = this.#settings.question === "in" ? prompt.tokens.length : prompt.contextLength;
    // All but the last token: read after restoring, it shows what compression needs to see.
    await this.#reader.read(index, cut - 1, events);
    using before = this.#context.snapshot();
    const turn: Turn = { example, tokens: prompt.tokens, cut, before };

    const size = await this.#ready(turn, FULL);
    const reference = await this.#reference(turn, events.signal);
    const { logits, scores } = await this.#distributions(reference.continuation);
    const complete = completed(reference, logits, scores);
    const full = { ...size, kl: 0, nll: await this.#nll(complete.nllTokens) };
    const rows = [this.#row(turn, FULL, full, complete.answerText)];

    for (const one of cases) {
      events.signal?.throwIfAborted();
      const size = await this.#ready(turn, one);
      const { logits, scores } = await this.#distributions(complete.continuation);
      const pending = this.#nll(complete.nllTokens); // the engine computes while this thread sums
      const kl = complete.distributions.meanDivergence(scores);
      const same = saysTheSame(complete, logits, scores);
      const nll = await pending;
      const row = this.#row(turn, one, { ...size, kl, nll }, complete.answerText);
      rows.push(row);
      if (!this.#settings.answers || same) continue;
      await this.#answers.add(this.#context, {
        maxTokens: example.maxTokens,
        stop: example.stop ?? [],
        onAnswer: (text) => this.#fill(row, example, text),
      }, events.signal);
    }
    await this.#answers.finish(events.signal);
    return rows;
  }

  /** Fills the cache with the prompt, compressed as a case says. */
  async #ready(turn: Turn, one: Case): Promise<Size> {
    const { tokens, cut } = turn;
    const size = one.method === "full" || one.keep >= 1
      ? await this.#readCut(turn).then(() => ({ kept_tokens: cut, window: 0, compress_ms: 0 }))
      : this.#query.length > 0
      ? await this.#compressByQuery(turn, one)
      : await this.#compress(turn, one);
    if (cut < tokens.length) await this.#context.prefill(tokens.subarray(cut));
    return size;
  }

  async #readCut({ tokens, cut, before }: Turn): Promise<void> {
    this.#context.restore(before);
    await this.#context.prefill(tokens.subarray(cut - 1, cut));
  }

  async #compress(turn: Turn, one: Case): Promise<Size> {
    await this.#readCut(turn);
    const options = compressOptions(one, this.#settings, turn.cut);
    const report = this.#context.compress(options);
    return {
      kept_tokens: keptTokens(report.kept),
      window: options.window,
      compress_ms: report.selectMilliseconds + report.compactMilliseconds,
      ...(this.#settings.comparesLayers
        ? { similarity: layerSimilarity(report.kept, turn.cut - options.window) }
        : {}),
    };
  }

  /** Chooses by what a query after the context attends to; the query itself is not kept. */
  async #compressByQuery(turn: Turn, one: Case): Promise<Size> {
    await this.#readCut(turn);
    const { cut } = turn;
    const wanted = compressOptions(one, this.#settings, cut);
    await this.#context.prefill(this.#query);
    const chosen = this.#context.compress({
      ...wanted,
      // The window holds the query and at least the context's last token, which must stay.
      window: Math.max(wanted.window, this.#query.length + 1),
      budget: wanted.budget + this.#query.length,
    });
    await this.#readCut(turn);
    const kept = chosen.kept.map(({ indices }) => indices.map((set) => set.filter((i) => i < cut)));
    const report = this.#context.compact(kept);
    const layers = kept.map((indices) => ({ indices }));
    const window = Math.max(wanted.window, this.#query.length + 1);
    return {
      kept_tokens: keptTokens(layers),
      window,
      compress_ms: chosen.selectMilliseconds + report.compactMilliseconds,
      ...(this.#settings.comparesLayers
        ? { similarity: layerSimilarity(layers, cut + this.#query.length - window) }
        : {}),
    };
  }

  /** What the full cache answers, and how it would go on. */
  async #reference(turn: Turn, signal: AbortSignal | undefined): Promise<Answered> {
    const { maxTokens, stop = [], reference } = turn.example;
    const { klTokens, nllTokens, answers } = this.#settings;
    const { answer, continuation } = await this.#answers.answerNow(this.#context, {
      maxTokens: answers ? maxTokens : Math.min(maxTokens, klTokens),
      stop,
      leastTokens: klTokens,
      ...(signal ? { signal } : {}),
    });
    return {
      continuation: continuation.slice(0, klTokens),
      answerLength: answer.tokens.length,
      answerText: answer.text,
      nllTokens: this.#model.tokenizer.tokenize(reference).subarray(0, nllTokens),
    };
  }

  /** What is said after the prompt, and after each token of a continuation. */
  async #distributions(continuation: readonly number[]) {
    const { vocabSize } = this.#model.tokenizer;
    const logits: LogitRows = { logits: this.#context.logits(), vocabSize };
    return { logits, scores: { logits: await this.#context.score(continuation), vocabSize } };
  }

  /** Mean negative log-likelihood of a text's tokens after the prompt; null without any. */
  async #nll(tokens: Int32Array<ArrayBuffer>): Promise<number | null> {
    if (tokens.length === 0) return null;
    const { vocabSize } = this.#model.tokenizer;
    let sum = logLikelihood({ logits: this.#context.logits(), vocabSize }, 0, tokens[0]!);
    if (tokens.length > 1) {
      const logits = await this.#context.score(tokens.subarray(0, -1));
      for (let i = 1; i < tokens.length; i++) {
        sum += logLikelihood({ logits, vocabSize }, i - 1, tokens[i]!);
      }
    }
    return -sum / tokens.length;
  }

  #row(turn: Turn, one: Case, measured: Size & { kl: number; nll: number | null }, answer: string) {
    const { example, tokens } = turn;
    const { length, depth } = example;
    const row: ExampleRow = {
      id: example.id,
      task: example.task,
      ...one,
      score: null,
      nll: measured.nll,
      kl: measured.kl,
      prompt_tokens: tokens.length,
      kept_tokens: measured.kept_tokens,
      window: measured.window,
      compress_ms: measured.compress_ms,
      ...(measured.similarity === undefined ? {} : { similarity: measured.similarity }),
      ...(length === undefined ? {} : { length }),
      ...(depth === undefined ? {} : { depth }),
    };
    this.#fill(row, example, answer);
    return row;
  }

  #fill(row: ExampleRow, example: Example, answer: string): void {
    if (!this.#settings.answers) return;
    row.score = score(example, answer);
    if (this.#settings.storesAnswers) row.answer = answer;
  }

  /** Frees the contexts. */
  [Symbol.dispose](): void {
    this.#answers[Symbol.dispose]();
    this.#reader[Symbol.dispose]();
    this.#context[Symbol.dispose]();
  }
}

/** One example's prompt, read up to the token before the cut. */
interface Turn {
  readonly example: Example;
  readonly tokens: Int32Array<ArrayBuffer>;
  /** Tokens that are there when the cache is compressed. */
  readonly cut: number;
  readonly before: LlamaSnapshot;
}

type Size = Pick<ExampleRow, "kept_tokens" | "window" | "compress_ms" | "similarity">;

/** Tokens that a layer keeps, on average. */
function keptTokens(layers: readonly Pick<KeptLayer, "indices">[]): number {
  return layers.reduce((sum, { indices }) => sum + indices[0]!.length, 0) / layers.length;
}

/** Tokens that there must be room for after a prompt. */
export function roomAfter(example: Example, settings: EvaluationSettings): number {
  return Math.max(example.maxTokens, settings.klTokens + 1, settings.nllTokens) + 8;
}
