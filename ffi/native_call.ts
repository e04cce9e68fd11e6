/**
 * The native call of a step, blocking or on another thread.
 *
 * @module
 */
import { native } from "./library.ts";
import type { Step } from "./stages.ts";

// The stages differ in their parameters; a test compares the table with the header.
type AnyStage<Result> = (context: Deno.PointerObject, ...args: Step["args"]) => Result;

/** Runs it here. */
export function blocking(context: Deno.PointerObject, step: Step): number {
  return (native()[step.name] as AnyStage<number>)(context, ...step.args);
}

/** Runs it on another thread. */
export function nonblocking(context: Deno.PointerObject, step: Step): Promise<number> {
  return (native()[`${step.name}_async`] as AnyStage<Promise<number>>)(context, ...step.args);
}
