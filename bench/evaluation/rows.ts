/**
 * What one method made of one example.
 *
 * @module
 */

/** One line of the journal and of `examples` in the JSON. */
export interface ExampleRow {
  id: string;
  task: string;
  method: string;
  /** Fraction of the prompt's tokens kept. */
  keep: number;
  /** Neighbouring layers that share a selection. */
  reuse: number;
  /** Tokens in a chunk, where several sizes were compared. */
  chunk_size?: number;
  /** Observation window asked for, where several were compared. */
  window_size?: number;
  /** Tokens that share a token's score, where several were compared. */
  spread?: number;
  /** Of the answer by the task's metric, 0 (wrong) to 1 (right); null where none was asked for. */
  score: number | null;
  /** Mean negative log-likelihood of the reference answer's tokens, in nats; null without one. */
  nll: number | null;
  /** Mean KL(full || this) in nats over the full cache's own greedy continuation. */
  kl: number;
  /** Tokens of the prompt. */
  prompt_tokens: number;
  /** Of them, those that a layer kept, on average. */
  kept_tokens: number;
  /** Observation window used. */
  window: number;
  /** Scores, selection and moving rows; 0 for the full cache. */
  compress_ms: number;
  /** Needle: tokens asked for. */
  length?: number;
  /** Needle: where the fact stands, 0 to 1. */
  depth?: number;
  /** `reuse`: Jaccard similarity of what each compressed layer and the one before it chose. */
  similarity?: number[];
  /** What the model said; left out where completions must not be stored. */
  answer?: string;
}

/** An example's name, unique in a run. */
export function exampleKey({ task, id }: { task: string; id: string }): string {
  return `${task}/${id}`;
}
