/**
 * Setup as a list of steps, each of which does nothing when its result is there.
 *
 * @module
 */
import { explain } from "./process.ts";

/** One thing that setup provides. */
export interface Step {
  /** What it provides, for the user. */
  title: string;
  /** What the user can do where it fails. */
  otherwise: string;
  /** True where nothing else works without it. */
  essential?: boolean;
  /** True if the result is there already; quick, and without network. */
  isDone(): boolean | Promise<boolean>;
  /** Provides it. */
  run(): Promise<void>;
}

/** How {@linkcode runSteps} ended. */
export interface Outcome {
  /** Steps that had work to do and did it. */
  done: Step[];
  /** Steps that failed. */
  failed: Step[];
}

/**
 * Runs the steps that are not done, in order. A step that fails is reported with what to do
 * instead, and the others still run.
 *
 * @param log Gets one line at a time.
 */
export async function runSteps(steps: Step[], log: (line: string) => void): Promise<Outcome> {
  const outcome: Outcome = { done: [], failed: [] };
  for (const [index, step] of steps.entries()) {
    const place = `[${index + 1}/${steps.length}]`;
    try {
      if (await step.isDone()) continue;
      log(`${place} ${step.title}`);
      const start = performance.now();
      await step.run();
      log(`${place} done in ${((performance.now() - start) / 1000).toFixed(1)} s`);
      outcome.done.push(step);
    } catch (error) {
      log(`${place} FAILED: ${explain(error)}`);
      log(`      Instead: ${step.otherwise}`);
      outcome.failed.push(step);
    }
  }
  return outcome;
}
