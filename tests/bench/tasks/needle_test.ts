import fc from "fast-check";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { load } from "../../../bench/tasks/needle.ts";
import { UsageError } from "../../../bench/usage.ts";
import { withFiles } from "./folder.ts";

// Not additive over sentences, as real tokenizers are not: every text costs one more.
function countTokens(text: string): number {
  return 1 + (text.match(/\w+|[^\w\s]/g)?.length ?? 0);
}

const NEEDLE = /The special magic number for \w+ is: \d{7}\./;

Deno.test("needles fill their context to the token, up to one more sentence", async () => {
  const lengths = [300, 1000, 5000];
  const examples = await load(undefined, { seed: 3, lengths, countTokens });
  assertEquals(examples.length, 75);
  // The story's longest sentence.
  const longest = 100;
  for (const { context, length, answers } of examples) {
    const tokens = countTokens(context);
    assert(tokens <= length! && tokens > length! - longest, `${tokens} of ${length}`);
    assertEquals(context.match(new RegExp(NEEDLE, "g"))?.length, 1);
    assert(context.includes(`is: ${answers[0]}.`));
  }
});

Deno.test("needles fit where sentences together have more tokens than apart", async () => {
  const coarse = (text: string) => Math.floor(text.length / 40);
  for (
    const { context } of await load(undefined, { seed: 3, lengths: [90], countTokens: coarse })
  ) {
    assert(coarse(context) <= 90 && coarse(context) > 80, `${coarse(context)}`);
  }
});

Deno.test("needles stand at their depth, at ends of sentences", async () => {
  const depths = [0, 0.1, 0.5, 0.9, 1];
  const examples = await load(undefined, { seed: 4, lengths: [3000], depths, countTokens });
  for (const { context, depth } of examples) {
    const [before, after] = context.split(NEEDLE) as [string, string];
    const total = countTokens(before) + countTokens(after);
    assertAlmostEquals(countTokens(before) / total, depth!, 0.02);
    assert(before === "" || /[.!?'"]\s+$|\n\n$/.test(before), JSON.stringify(before.slice(-40)));
    if (depth === 0) assertEquals(before, "");
    if (depth === 1) assertEquals(after, "");
  }
});

Deno.test("25 needles a length are spread over the depths, none like another", async () => {
  const examples = await load(undefined, { seed: 5, lengths: [500] });
  const perDepth = Map.groupBy(examples, ({ depth }) => depth);
  assertEquals([...perDepth.values()].map((group) => group.length), [5, 5, 5, 5, 5]);
  assertEquals(new Set(examples.map(({ answers }) => answers[0])).size, 25);
  assertEquals(new Set(examples.map(({ context }) => context)).size, 25);
});

Deno.test("numbers have as many digits as asked for, seven else", async () => {
  for (const digits of [1, 4, 15, undefined]) {
    const examples = await load(undefined, {
      ...{ seed: 7, lengths: [200], limit: 9 },
      ...(digits ? { digits } : {}),
    });
    for (const { answers: [number], context, maxTokens } of examples) {
      assert(new RegExp(`^[1-9]\\d{${(digits ?? 7) - 1}}$`).test(number!), number);
      assert(context.includes(` is: ${number}.`) && maxTokens > (digits ?? 7));
    }
  }
});

Deno.test("another length or a higher limit leaves the other needles as they were", async () => {
  const few = await load(undefined, { seed: 6, lengths: [600], limit: 3 });
  const many = await load(undefined, { seed: 6, lengths: [400, 600], limit: 7 });
  for (const example of few) {
    assertEquals(many.find(({ id }) => id === example.id), example);
  }
});

Deno.test("any text, length and depth gives a context of at most that length", async () => {
  const text = fc.array(fc.lorem({ mode: "sentences", maxCount: 4 }), { minLength: 1 });
  const cases = fc.record({
    text,
    length: fc.integer({ min: 80, max: 900 }),
    depth: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  await fc.assert(
    fc.asyncProperty(cases, async ({ text, length, depth }) => {
      await withFiles({ "a.txt": text.join("\n\n") }, async (dir) => {
        const options = { seed: 1, lengths: [length], depths: [depth], limit: 2, countTokens };
        for (const { context } of await load(dir, options)) {
          assert(countTokens(context) <= length && NEEDLE.test(context));
        }
      });
    }),
    { numRuns: 40 },
  );
});

Deno.test("needle refuses depths outside the text and lengths without room", async () => {
  const wrong = (options: object) => load(undefined, { seed: 1, ...options });
  await assertRejects(() => wrong({ depths: [50] }), UsageError, "from 0 to 1 but found 50");
  await assertRejects(() => wrong({ depths: [] }), UsageError, "at least one length and one depth");
  await assertRejects(() => wrong({ lengths: [5] }), UsageError, "room for the needle");
});
