/**
 * Values from the command line: checked once, with words.
 *
 * @module
 */

/** The user asked for something that cannot be: exit code 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** A parser of whole numbers from `low` to `high` for the option `name`. */
export function integer(name: string, low: number, high = 2 ** 31 - 1): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isInteger(value) || value < low || value > high) {
      const range = high === 2 ** 31 - 1 ? `of at least ${low}` : `from ${low} to ${high}`;
      throw new UsageError(`Expected ${name} to be a whole number ${range} but found "${text}"`);
    }
    return value;
  };
}

/** A parser of fractions above 0 and at most 1 for the option `name`. */
export function fraction(name: string, least = Number.MIN_VALUE): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== "" && value >= least && value <= 1) return value;
    const range = least > 0 ? "above 0 and at most 1" : `from ${least} to 1`;
    throw new UsageError(`Expected ${name} to be ${range} but found "${text}"`);
  };
}

/** A parser of lists with commas, at least one value and none twice, for the option `name`. */
export function list<T>(name: string, parse: (text: string) => T): (text: string) => T[] {
  return (text) => {
    const values = text.split(",").map((part) => parse(part.trim()));
    if (new Set(values).size === values.length) return values;
    throw new UsageError(`Expected ${name} to name each value once but found "${text}"`);
  };
}

/** Reads a text file; a missing one is bad usage and says which option named it. */
export async function readTextFile(path: string, option: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (cause) {
    throw new UsageError(
      `Expected ${option} to name a readable file but found "${path}": ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** Ctrl-C as a signal: the first stops the work in order, a second one ends the process. */
export function interruption(): AbortController {
  const controller = new AbortController();
  const stop = () => {
    Deno.removeSignalListener("SIGINT", stop);
    controller.abort(new Error("Stopped by Ctrl-C"));
  };
  Deno.addSignalListener("SIGINT", stop);
  return controller;
}
