/**
 * Which examples are asked.
 *
 * @module
 */
import { shuffle } from "simple-statistics";
import { seededRandom } from "../random.ts";
import { UsageError } from "../usage.ts";
import type { Example, LoadOptions } from "./example.ts";

/** At most `limit` examples of each task, drawn with the seed, in their order. */
export function draw(examples: readonly Example[], options: LoadOptions): Example[] {
  const { limit, seed } = options;
  const tasks = Map.groupBy(examples, (example) => example.task);
  if (limit === undefined) return [...examples];
  const drawn = new Set<Example>();
  for (const [task, all] of tasks) {
    for (const example of shuffle(all, seededRandom(seed, "draw", task)).slice(0, limit)) {
      drawn.add(example);
    }
  }
  return examples.filter((example) => drawn.has(example));
}

/**
 * The tasks to load: those asked for, or all there are.
 *
 * @throws {UsageError} If one is asked for that is not there.
 */
export function chosenTasks(there: readonly string[], asked: readonly string[] | undefined) {
  const missing = asked?.find((task) => !there.includes(task));
  if (missing !== undefined) {
    throw new UsageError(`Expected tasks out of ${there.join(", ")} but found "${missing}"`);
  }
  return there.filter((task) => asked?.includes(task) ?? true);
}
