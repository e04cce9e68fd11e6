/**
 * One question of a benchmark, whatever the benchmark: a text, what is asked about it, and how the
 * answer is scored.
 *
 * @module
 */

/** The task of harmless requests beside attacks, where answering is right. */
export const CONTROLS = "benign";

/** How answers are scored; `bench/metrics/score.ts` has a function for each. */
export type Metric =
  | "qa_f1"
  | "qa_f1_zh"
  | "rouge_l"
  | "rouge_l_zh"
  | "classification"
  | "retrieval"
  | "retrieval_zh"
  | "count"
  | "code_sim"
  | "gsm8k"
  | "needle"
  | "refusal";

/**
 * One prompt and its expected answer. What the user says is `instructionBefore`, `context`,
 * `instructionAfter` and `question`, joined without anything between them
 * ({@linkcode promptText}); the model's turn begins with `answerStart`.
 */
export interface Example {
  /** Unique within its task. */
  id: string;
  /** What scores are averaged over, such as `hotpotqa`. */
  task: string;
  /** Before the context. @default {""} */
  instructionBefore?: string;
  /** The long text; what may be cut to fit and what is compressed. */
  context: string;
  /** Between context and question. @default {""} */
  instructionAfter?: string;
  /** What is asked, to the end of the prompt; empty where the context is the whole request. */
  question: string;
  /** Words put in the model's mouth: small models answer where they would ramble. @default {""} */
  answerStart?: string;
  /**
   * Whether the prompt goes through the model's chat template. False where the official evaluation
   * lets the model complete the raw text: few-shot and code tasks.
   */
  chat: boolean;
  /** Every accepted answer; a prediction gets the best score over them. */
  answers: string[];
  /** The text whose likelihood `nll` measures, as it would follow the prompt. */
  reference: string;
  /** Most tokens to generate. */
  maxTokens: number;
  /** An answer ends before the first of these. @default {[]} */
  stop?: string[];
  /** How the answer is scored. */
  metric: Metric;
  /** All classes of a classification task. */
  allClasses?: string[];
  /** Needle: tokens of the context asked for. */
  length?: number;
  /** Needle: where the fact stands, 0 (start) to 1 (end). */
  depth?: number;
}

/** What a benchmark's `load` reads. */
export interface LoadOptions {
  /** Only these tasks. @default {all that are there} */
  tasks?: string[];
  /** Most examples a task, drawn with the seed. @default {all} */
  limit?: number;
  /** Of every random choice: the same seed gives the same examples. */
  seed: number;
  /** Needle: context lengths in tokens. */
  lengths?: number[];
  /** Needle: depths from 0 to 1. */
  depths?: number[];
  /** Needle: digits of the number to be found. */
  digits?: number;
  /** Needle: counts tokens as the model does. */
  countTokens?: (text: string) => number;
}

/** A benchmark's loader: `dir` undefined reads the sample that ships with the project. */
export type Load = (dir: string | undefined, options: LoadOptions) => Promise<Example[]>;

/** What the user says, before any chat template; `answerStart` comes after it. */
export function promptText(example: Example): string {
  const { instructionBefore = "", context, instructionAfter = "", question } = example;
  return instructionBefore + context + instructionAfter + question;
}
