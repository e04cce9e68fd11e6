/**
 * Means with confidence intervals, and whether two methods differ.
 *
 * @module
 */
import { mean, quantile, sampleWithReplacement } from "simple-statistics";
import { seededRandom } from "../random.ts";

/** A mean and its confidence interval. */
export interface Interval {
  mean: number;
  /** The lower end of the interval. */
  low: number;
  /** The upper end. */
  high: number;
  /** Values that it is the mean of. */
  n: number;
}

/** The difference of two methods over the same examples. */
export interface Difference extends Interval {
  /** Whether the interval leaves out zero. */
  isSignificant: boolean;
}

/** How intervals are computed. */
export interface BootstrapOptions {
  /** Of the resampling. @default {0} */
  seed?: number;
  /** Times that the values are drawn anew. @default {2000} */
  resamples?: number;
  /** Share of means inside the interval. @default {0.95} */
  level?: number;
}

/**
 * The mean with its percentile bootstrap interval.
 *
 * @param values At least one; all finite.
 * @throws {RangeError} If a value is not finite or there is none.
 */
export function meanInterval(values: readonly number[], options: BootstrapOptions = {}): Interval {
  return groupedInterval([values], options);
}

/**
 * The mean of the groups' means, as benchmarks average over tasks, with its interval: each group is
 * drawn anew within itself, groups of one value among each other, which is rather too wide than too
 * narrow (collapsed strata: Cochran, Sampling Techniques, 1977).
 *
 * @param groups At least one, each with at least one value; all finite.
 * @throws {RangeError} If a value is not finite, or there is none.
 */
export function groupedInterval(
  groups: readonly (readonly number[])[],
  options: BootstrapOptions = {},
): Interval {
  const { seed = 0, resamples = 2000, level = 0.95 } = options;
  if (!(level > 0 && level < 1)) {
    throw new RangeError(`Expected level to be between 0 and 1 but found ${level}`);
  }
  if (groups.length === 0) throw new RangeError("Expected at least one group but found none");
  for (const group of groups) checkFinite(group);
  const lists = groups.map((group) => [...group]);
  const random = seededRandom(seed, "bootstrap");
  const single = lists.filter((list) => list.length === 1).flat();
  const others = lists.filter((list) => list.length > 1);
  const resampled = (list: number[]) => mean(sampleWithReplacement(list, list.length, random));
  const drawn = () => [
    ...others.map(resampled),
    ...single.length > 0 ? sampleWithReplacement(single, single.length, random) : [],
  ];
  const means = Array.from({ length: resamples }, () => mean(drawn()));
  const tail = (1 - level) / 2;
  const [low, high] = quantile(means, [tail, 1 - tail]);
  const n = lists.reduce((count, list) => count + list.length, 0);
  return { mean: mean(lists.map((list) => mean(list))), low: low!, high: high!, n };
}

/** Whether values tell how much they vary: not where one group has one alone. */
export function hasInterval(groups: readonly (readonly number[])[]): boolean {
  return groups.filter((group) => group.length === 1).length !== 1;
}

/**
 * The mean of `a[i] - b[i]` with its interval: both methods answered example `i`.
 *
 * @throws {RangeError} If the lengths differ, there is none, or a value is not finite.
 */
export function pairedDifference(
  a: readonly number[],
  b: readonly number[],
  options: BootstrapOptions = {},
): Difference {
  if (a.length !== b.length) {
    throw new RangeError(
      `Expected as many values of both methods but found ${a.length} and ${b.length}`,
    );
  }
  return asDifference(meanInterval(a.map((value, i) => value - b[i]!), options));
}

/** An interval of differences, and whether it leaves out zero. */
export function asDifference(interval: Interval): Difference {
  return { ...interval, isSignificant: interval.low > 0 || interval.high < 0 };
}

function checkFinite(values: readonly number[]): void {
  if (values.length === 0) throw new RangeError("Expected at least one value but found none");
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    throw new RangeError(`Expected finite values but found ${values[bad]} at index ${bad}`);
  }
}
