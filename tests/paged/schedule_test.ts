/**
 * Random schedules on a paged cache against a dense model of it.
 *
 * @module
 */
import { assert } from "@std/assert";
import fc from "fast-check";
import { anyDtype } from "../arbitraries.ts";
import { type Counts, Schedule, type ScheduleCase } from "./schedule.ts";

const RUNS = 100, STEPS = 150;

const anyCase: fc.Arbitrary<ScheduleCase> = fc.record({
  numLayers: fc.integer({ min: 1, max: 3 }),
  numKvHeads: fc.integer({ min: 1, max: 2 }),
  headDim: fc.constant(32),
  dtype: anyDtype,
  blockSize: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constant(16)),
  numBlocks: fc.integer({ min: 2, max: 60 }),
  layout: fc.constantFrom("nhd", "hnd", "fused"),
  memory: fc.constantFrom("own", "arrays", "addresses"),
  prefixCaching: fc.boolean(),
  seed: fc.integer(),
});

Deno.test("PagedKvCache agrees with a dense model over random schedules", async () => {
  const counts: Counts = new Map();
  await fc.assert(
    fc.asyncProperty(anyCase, async (one) => {
      using schedule = new Schedule(one, counts);
      for (let step = 0; step < STEPS; step++) await schedule.step();
      schedule.finish();
    }),
    { numRuns: RUNS },
  );
  // A schedule that never comes to these would prove little.
  for (
    const what of [
      "prefix hits",
      "out of blocks",
      "copied out",
      "in place",
      "no room to copy out",
      "write",
    ]
  ) {
    assert((counts.get(what) ?? 0) > 10, `${what}: ${Deno.inspect(counts)}`);
  }
});
