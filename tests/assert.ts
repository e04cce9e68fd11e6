/**
 * The assertions that tests use, under the names of `@std/assert`: pointing the import map's
 * `@std/assert` entry at that package replaces this file.
 *
 * @module
 */
import assertModule from "node:assert/strict";

/** Fails unless `condition` is truthy. */
export function assert(condition: unknown, message?: string): asserts condition {
  assertModule.ok(condition, message!);
}

/** Fails unless both values are deeply equal. */
export function assertEquals<T>(actual: T, expected: T, message?: string): void {
  assertModule.deepStrictEqual(actual, expected, message!);
}

/** Fails if both values are deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, message?: string): void {
  assertModule.notDeepStrictEqual(actual, expected, message!);
}

/** Fails unless `|actual - expected| <= tolerance`; NaN never passes. */
export function assertAlmostEquals(
  actual: number,
  expected: number,
  tolerance = 1e-7,
  message = "",
): void {
  const difference = Math.abs(actual - expected);
  if (!(difference <= tolerance)) {
    assertModule.fail(
      `${message} Expected ${expected} within ${tolerance} but found ${actual} (off by ${difference})`,
    );
  }
}

/** Fails unless `actual` contains `expected`. */
export function assertStringIncludes(actual: string, expected: string): void {
  assertModule.ok(
    actual.includes(expected),
    `Expected a text that contains ${JSON.stringify(expected)} but found ${JSON.stringify(actual)}`,
  );
}

type ErrorClass<E extends Error> = abstract new (...args: never[]) => E;

function checkError<E extends Error>(
  error: unknown,
  errorClass: ErrorClass<E>,
  includes: string,
): E {
  if (!(error instanceof errorClass)) {
    assertModule.fail(`Expected a ${errorClass.name} but found ${error}`);
  }
  assertStringIncludes(error.message, includes);
  return error;
}

/** Fails unless `run` throws an `errorClass` whose message contains `includes`; returns the error. */
export function assertThrows<E extends Error>(
  run: () => unknown,
  errorClass: ErrorClass<E>,
  includes = "",
): E {
  let thrown: unknown;
  try {
    run();
  } catch (error) {
    thrown = error;
    return checkError(thrown, errorClass, includes);
  }
  assertModule.fail(`Expected a ${errorClass.name} but nothing was thrown`);
}

/** Fails unless `run` rejects with an `errorClass` whose message contains `includes`. */
export async function assertRejects<E extends Error>(
  run: () => Promise<unknown>,
  errorClass: ErrorClass<E>,
  includes = "",
): Promise<E> {
  try {
    await run();
  } catch (error) {
    return checkError(error, errorClass, includes);
  }
  assertModule.fail(`Expected a ${errorClass.name} but nothing was thrown`);
}
