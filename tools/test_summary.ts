/**
 * What test programs say at their end.
 *
 * @module
 */

/** How many tests ended how. */
export interface Counts {
  /** Tests that held. */
  passed: number;
  /** Tests that did not, and programs that died or ran none. */
  failed: number;
  /** Tests that did not run. */
  skipped: number;
}

// `ok | 12 passed (3 steps) | 1 failed | 2 ignored (4s)`
const DENO = /^(?:ok|FAILED) \| (\d+) passed(?: \([^)]*\))? \| (\d+) failed(.*)$/gm;
const DENO_IGNORED = /\| (\d+) ignored/;
// `12 passed, 1 failed`
const PLAIN = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/gm;
// `== 1 failed, 12 passed, 2 skipped, 3 warnings in 197.08s (0:03:17) ==`
const PYTEST = /^(?:=+ )?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s(?: \([\d:]+\))?(?: =+)?$/gm;

/**
 * Reads the last summary in a test program's output: deno's, pytest's or the plain form.
 *
 * @param output All that it wrote; colours are fine.
 * @param code Its exit code.
 * @returns The counts. A program that ended badly, or ran no test, has at least one failure.
 */
export function readSummary(output: string, code: number): Counts {
  // deno-lint-ignore no-control-regex
  const plain = output.replace(/\x1b\[[0-9;]*m/g, "").replaceAll("\r\n", "\n");
  const last = [...plain.matchAll(DENO), ...plain.matchAll(PLAIN)].at(-1);
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  if (last) {
    const [, passed, failed, rest] = last;
    counts.passed = Number(passed);
    counts.failed = Number(failed);
    counts.skipped = Number(rest?.match(DENO_IGNORED)?.[1] ?? rest?.match(/^\d+$/)?.[0] ?? 0);
  } else {
    const items = [...plain.matchAll(PYTEST)].at(-1)?.[1] ?? "";
    const count = (name: string) => Number(items.match(RegExp(`(\\d+) ${name}`))?.[1] ?? 0);
    counts.passed = count("passed");
    counts.failed = count("failed") + count("error");
    counts.skipped = count("skipped");
  }
  const endedBadly = code !== 0 && counts.failed === 0;
  const ranNone = counts.passed + counts.failed === 0;
  if (endedBadly || ranNone) counts.failed++;
  return counts;
}

/** Adds up. */
export function sum(all: Counts[]): Counts {
  return all.reduce((a, b) => ({
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
  }), { passed: 0, failed: 0, skipped: 0 });
}

/** The plain form. */
export function summaryLine({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}
