/**
 * A benchmark from its examples to its rows.
 *
 * @module
 */
import { basename } from "node:path";
import { LlamaModel } from "chunkkv/llama-cpp";
import { Progress } from "../report/progress.ts";
import type { Example } from "../tasks/example.ts";
import { interruption, UsageError } from "../usage.ts";
import { type Case, FULL } from "./cases.ts";
import { type EvaluationSettings, Evaluator, roomAfter, type Task } from "./evaluator.ts";
import { exampleHash, Journal } from "./journal.ts";
import { type EvaluationOptions, type ModelOptions, modelPath } from "./options.ts";
import { compareTokens } from "./prefixes.ts";
import { evaluationPrompt } from "./prompt.ts";
import { exampleKey, type ExampleRow } from "./rows.ts";
import { SharedList } from "./shared_list.ts";

/** What came out. */
export interface Evaluation {
  /** For each example the full cache's row, then one for each case. */
  rows: ExampleRow[];
  /** Examples by task that were left out, being longer than the context. */
  tooLong: Record<string, number>;
  /** Examples whose rows were all in the journal. */
  resumed: number;
}

/** Loads the model that the options name, with a bar. */
export async function loadModel(options: ModelOptions): Promise<LlamaModel> {
  using bar = new Progress("loading", 100, "%");
  return await LlamaModel.load(modelPath(options.model), {
    gpuLayers: options.gpuLayers,
    onProgress: (part) => bar.update(Math.round(part * 100)),
  });
}

/**
 * Evaluates examples.
 *
 * @param model The model.
 * @param command The command's name, for the journal.
 * @param examples What is asked.
 * @param cases What is compared with the full cache.
 * @param options The command line.
 * @param extras What else rows hold; answers by default.
 * @throws {UsageError} If no example fits.
 */
export async function runEvaluation(
  model: LlamaModel,
  command: string,
  examples: readonly Example[],
  cases: readonly Case[],
  options: EvaluationOptions,
  extras: Partial<Pick<EvaluationSettings, "storesAnswers" | "comparesLayers">> = {},
): Promise<Evaluation> {
  const settings = evaluationSettings(model, options, {
    accumulatesAttention: cases.some(({ method }) => method === "h2o"),
    ...extras,
  });
  const { tasks, tooLong } = fittingTasks(model, examples, options, settings);
  const evaluation: Evaluation = { rows: [], tooLong, resumed: 0 };
  using journal = new Journal(options.resume, journalSettings(model, command, options, settings));
  const open: Task[] = [];
  for (const task of tasks) {
    const found = knownRows(journal, task, cases);
    if (found) evaluation.rows.push(...found);
    else open.push(task);
  }
  evaluation.resumed = tasks.length - open.length;
  const fresh = open.length > 0
    ? await evaluateAll(model, open, cases, settings, journal, options)
    : [];
  evaluation.rows = evaluation.rows.concat(fresh);
  const order = new Map(examples.map((example, i) => [exampleKey(example), i]));
  evaluation.rows.sort((a, b) => order.get(exampleKey(a))! - order.get(exampleKey(b))!);
  return evaluation;
}

async function evaluateAll(
  model: LlamaModel,
  tasks: readonly Task[],
  cases: readonly Case[],
  settings: EvaluationSettings,
  journal: Journal,
  options: EvaluationOptions,
): Promise<ExampleRow[]> {
  const workers = Math.min(options.workers, tasks.length);
  const threads = threadsOfWorker(options, workers);
  const { signal } = interruption();
  const stop = new AbortController();
  const signals = AbortSignal.any([signal, stop.signal]);
  const work = tasks.map(({ prompt }) => prompt.tokens.length);
  using progress = new Progress("evaluating", sum(work), "tokens of prompts");
  const list = new SharedList(tasks.length, workers);
  const rows: ExampleRow[] = [];
  let done = 0;
  const run = async (worker: number) => {
    using evaluator = new Evaluator(model, tasks, { ...settings, ...threads });
    for (let i; (i = list.next(worker)) !== undefined;) {
      signals.throwIfAborted();
      rows.push(...await evaluateOne(evaluator, i, tasks[i]!, cases, journal, signals));
      progress.update(done += work[i]!);
    }
  };
  // All have stopped, and freed what is theirs, when the first error is told.
  const ends = await Promise.allSettled(Array.from({ length: workers }, async (_, worker) => {
    try {
      await run(worker);
    } catch (error) {
      stop.abort(error);
      throw error;
    }
  }));
  if (ends.some(({ status }) => status === "rejected")) throw stop.signal.reason;
  return rows;
}

async function evaluateOne(
  evaluator: Evaluator,
  index: number,
  { prompt, example }: Task,
  cases: readonly Case[],
  journal: Journal,
  signal: AbortSignal,
): Promise<ExampleRow[]> {
  const hash = exampleHash(prompt.tokens, example);
  const known = [FULL, ...cases].map((one) => journal.find(exampleKey(example), one, hash));
  const missing = cases.filter((_, c) => known[c + 1] === undefined);
  const [full, ...others] = await evaluator.evaluate(index, missing, { signal });
  journal.add(known[0] ? others : [full!, ...others], hash);
  const fresh = others.values();
  return [known[0] ?? full!, ...cases.map((_, c) => known[c + 1] ?? fresh.next().value!)];
}

/** The rows of an example if the journal has all of them. */
function knownRows(journal: Journal, task: Task, cases: readonly Case[]): ExampleRow[] | null {
  const hash = exampleHash(task.prompt.tokens, task.example);
  const rows = [FULL, ...cases].map((one) => journal.find(exampleKey(task.example), one, hash));
  return rows.every((row) => row !== undefined) ? rows : null;
}

/** The examples that fit, ordered so that those that begin alike are neighbours. */
function fittingTasks(
  model: LlamaModel,
  examples: readonly Example[],
  options: EvaluationOptions,
  settings: EvaluationSettings,
) {
  const most = Math.min(options.contextSize, model.info.trainedContext);
  const tasks: Task[] = [];
  const tooLong: Record<string, number> = {};
  for (const example of examples) {
    const prompt = evaluationPrompt(model, example);
    if (prompt.tokens.length + roomAfter(example, settings) <= most) {
      tasks.push({ example, prompt });
    } else tooLong[example.task] = (tooLong[example.task] ?? 0) + 1;
  }
  if (tasks.length === 0) {
    throw new UsageError(
      `Expected an example that fits in ${most} tokens with its answer but found none of ` +
        `${examples.length}: --context-size is ${options.contextSize}, the model was trained with ` +
        `${model.info.trainedContext}`,
    );
  }
  tasks.sort((a, b) => compareTokens(a.prompt.tokens, b.prompt.tokens));
  return { tasks, tooLong };
}

function evaluationSettings(
  model: LlamaModel,
  options: EvaluationOptions,
  extras: Partial<EvaluationSettings>,
): EvaluationSettings {
  const { queryText, question, window, chunkSize, spread, klTokens, nllTokens, answers } = options;
  const query = model.tokenizer.tokenize(queryText ?? "").length;
  if (query > 63) {
    throw new UsageError(`Expected --query-text of at most 63 tokens but found ${query}`);
  }
  return {
    question,
    window,
    klTokens,
    nllTokens,
    answers,
    storesAnswers: true,
    ...extras,
    ...(queryText === undefined ? {} : { queryText }),
    ...(chunkSize === undefined ? {} : { chunkSize }),
    ...(spread === undefined ? {} : { spread }),
  };
}

/** A worker's share of the threads; alone it has the engine's own number. */
function threadsOfWorker(options: EvaluationOptions, workers: number): { threads?: number } {
  const { threads = workers > 1 ? navigator.hardwareConcurrency : undefined } = options;
  return threads === undefined ? {} : { threads: Math.max(1, Math.floor(threads / workers)) };
}

/** What rows depend on beside their example and case. */
function journalSettings(
  model: LlamaModel,
  command: string,
  options: EvaluationOptions,
  settings: EvaluationSettings,
) {
  return {
    command,
    model: basename(modelPath(options.model)),
    model_bytes: model.info.sizeBytes,
    question: settings.question,
    query_text: settings.queryText ?? null,
    // Where several are compared, cases name them.
    window: single(settings.window),
    chunk_size: single(settings.chunkSize),
    kl_tokens: settings.klTokens,
    nll_tokens: settings.nllTokens,
    ...(settings.answers ? {} : { answers: false }),
    ...(settings.spread === undefined ? {} : { spread: single(settings.spread) }),
  };
}

function single(values: readonly number[] | undefined): number | null {
  return values?.length === 1 ? values[0]! : null;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
