/**
 * What the full cache says, which all others are compared with.
 *
 * @module
 */
import { likeliest, type LogitRows, ReferenceRows, rowCount } from "./likelihood.ts";

/** The full cache's answer to an example. */
export interface Answered {
  /** Its greedy continuation. */
  readonly continuation: readonly number[];
  /** Of them, those that are its answer. */
  readonly answerLength: number;
  readonly answerText: string;
  readonly nllTokens: Int32Array<ArrayBuffer>;
}

/** What others are compared with. */
export interface Reference extends Answered {
  /** What the full cache says is likeliest at each place of the answer, the place after its end included. */
  readonly likeliest: readonly number[];
  readonly distributions: ReferenceRows;
}

/** Adds what the full cache says when it is asked as the others are: all tokens in one batch. */
export function completed(reference: Answered, logits: LogitRows, scores: LogitRows): Reference {
  return {
    ...reference,
    likeliest: likeliestPath(logits, scores, reference.answerLength),
    distributions: new ReferenceRows(scores),
  };
}

function likeliestPath(logits: LogitRows, scores: LogitRows, answerLength: number): number[] {
  const places = Math.min(answerLength, rowCount(scores));
  return [likeliest(logits, 0), ...Array.from({ length: places }, (_, i) => likeliest(scores, i))];
}

/** Whether the full cache's whole answer, its end included, is what this cache would say, too. */
export function saysTheSame(reference: Reference, logits: LogitRows, scores: LogitRows): boolean {
  if (reference.answerLength > rowCount(scores)) return false;
  if (likeliest(logits, 0) !== reference.likeliest[0]) return false;
  for (let i = 0; i + 1 < reference.likeliest.length; i++) {
    if (likeliest(scores, i) !== reference.likeliest[i + 1]) return false;
  }
  return true;
}
