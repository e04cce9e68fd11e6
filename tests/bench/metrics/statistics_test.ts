import fc from "fast-check";
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import {
  groupedInterval,
  hasInterval,
  meanInterval,
  pairedDifference,
} from "../../../bench/metrics/statistics.ts";
import { random } from "../../random.ts";

/** Standard normal values. */
function normal(count: number, next: () => number): number[] {
  return Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
  );
}

Deno.test("meanInterval() is near the interval of the normal distribution", () => {
  const values = normal(400, random(1)).map((value) => 5 + 2 * value);
  const { mean, low, high, n } = meanInterval(values);
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  const halfWidth = 1.96 * Math.sqrt(variance / n);
  assertEquals(n, 400);
  // 2,000 resamples place a 2.5% quantile within some 5% of the half width.
  assertAlmostEquals(low, mean - halfWidth, 0.1 * halfWidth);
  assertAlmostEquals(high, mean + halfWidth, 0.1 * halfWidth);
});

Deno.test("meanInterval() covers the true mean about as often as it says", () => {
  const next = random(2);
  let covered = 0;
  for (let trial = 0; trial < 200; trial++) {
    const { low, high } = meanInterval(normal(40, next), { seed: trial, resamples: 400 });
    if (low <= 0 && 0 <= high) covered++;
  }
  // Binomial: 190 expected, standard deviation 3.1; the bootstrap is a little narrow at n = 40.
  assert(covered >= 175 && covered <= 199, `${covered} of 200`);
});

Deno.test("meanInterval() is the same for the same seed, and contains the mean", () => {
  const values = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1 });
  fc.assert(
    fc.property(values, fc.integer(), (scores, seed) => {
      const a = meanInterval(scores, { seed, resamples: 200 });
      assertEquals(a, meanInterval(scores, { seed, resamples: 200 }));
      assert(a.low <= a.mean + 1e-12 && a.mean <= a.high + 1e-12 || scores.length < 10);
      assert(a.low >= Math.min(...scores) - 1e-12 && a.high <= Math.max(...scores) + 1e-12);
    }),
    { numRuns: 50 },
  );
  const scores = normal(30, random(3));
  assert(meanInterval(scores, { seed: 1 }).low !== meanInterval(scores, { seed: 2 }).low);
});

Deno.test("groupedInterval() weighs groups alike, whatever their size", () => {
  const groups = [normal(400, random(6)), [10, 10, 10]];
  const { mean, low, high, n } = groupedInterval(groups);
  assertEquals(n, 403);
  assertAlmostEquals(mean, (meanInterval(groups[0]!).mean + 10) / 2, 1e-12);
  // Only the first group varies, and counts half.
  const first = meanInterval(groups[0]!);
  assertAlmostEquals((high - low) / (first.high - first.low), 0.5, 0.05);
  assertThrows(() => groupedInterval([]), RangeError, "at least one group");
  assertThrows(() => groupedInterval([[1], []]), RangeError, "at least one value");
});

Deno.test("groups of one value are drawn among each other, one alone has no interval", () => {
  const values = normal(400, random(7));
  // As if they were one group: nothing says what varies within each.
  const singles = groupedInterval(values.map((value) => [value]));
  const together = meanInterval(values);
  assertAlmostEquals(singles.mean, together.mean, 1e-12);
  assertAlmostEquals(singles.high - singles.low, together.high - together.low, 0.02);
  // Two of four tasks: a quarter of each value, and the others do not vary.
  const { mean, low, high } = groupedInterval([[0, 0], [4], [0, 0], [8]]);
  assertEquals([mean, low, high], [3, 2, 4]);
  assertEquals([[[1]], [[1, 2], [3]]].map(hasInterval), [false, false]);
  assertEquals([[[1, 2]], [[1], [3]], [[1, 2], [3], [4]]].map(hasInterval), [true, true, true]);
});

Deno.test("a wider level gives a wider interval", () => {
  const scores = normal(50, random(4));
  const [narrow, wide] = [0.5, 0.99].map((level) => meanInterval(scores, { level }));
  assert(wide!.low < narrow!.low && narrow!.high < wide!.high);
});

Deno.test("pairedDifference() sees a small shift that unpaired intervals would not", () => {
  const next = random(5);
  const b = normal(100, next).map((value) => 10 * value);
  const a = b.map((value, i) => value + 0.5 + normal(1, next)[0]! * (i % 2));
  const shift = pairedDifference(a, b);
  assert(shift.isSignificant && shift.low > 0);
  assertAlmostEquals(shift.mean, 0.5, 0.3);
  assert(meanInterval(a).low < meanInterval(b).high);
  assert(!pairedDifference(b, b).isSignificant);
  const back = pairedDifference(b, a);
  assert(back.isSignificant && back.high < 0);
});

Deno.test("statistics refuse what has no mean", () => {
  assertThrows(() => meanInterval([]), RangeError, "at least one value");
  assertThrows(() => meanInterval([1, NaN]), RangeError, "found NaN at index 1");
  assertThrows(() => meanInterval([1], { level: 95 }), RangeError, "between 0 and 1 but found 95");
  assertThrows(() => pairedDifference([1], [1, 2]), RangeError, "found 1 and 2");
});
