import { assert, assertEquals } from "@std/assert";

import { runSteps, type Step } from "../../tools/steps.ts";

function step(title: string, events: string[], overrides: Partial<Step> = {}): Step {
  return {
    title,
    otherwise: `do without ${title}`,
    isDone: () => false,
    run: () => {
      events.push(title);
      return Promise.resolve();
    },
    ...overrides,
  };
}

Deno.test("runSteps() runs in order what is not done", async () => {
  const events: string[] = [];
  const steps = [step("a", events), step("b", events, { isDone: () => true }), step("c", events)];
  const { done, failed } = await runSteps(steps, () => {});
  assertEquals(events, ["a", "c"]);
  assertEquals(done.map(({ title }) => title), ["a", "c"]);
  assertEquals(failed, []);
});

Deno.test("runSteps() says nothing when all is done", async () => {
  const lines: string[] = [];
  await runSteps([step("a", [], { isDone: () => Promise.resolve(true) })], (l) => lines.push(l));
  assertEquals(lines, []);
});

Deno.test("runSteps() reports a failure with what to do instead, and goes on", async () => {
  const events: string[] = [];
  const lines: string[] = [];
  const broken = step("a", events, {
    run: () => Promise.reject(new Error("no network", { cause: new Error("name not found") })),
  });
  const { failed } = await runSteps([broken, step("b", events)], (line) => lines.push(line));
  assertEquals(failed, [broken]);
  assertEquals(events, ["b"]);
  assert(lines.some((line) => line.includes("no network (name not found)")));
  assert(lines.some((line) => line.includes("do without a")));
});
