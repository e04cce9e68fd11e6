import fc from "fast-check";
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { Example, Metric } from "../../../bench/tasks/example.ts";
import { isRefusal } from "../../../bench/metrics/refusal.ts";
import { score } from "../../../bench/metrics/score.ts";

interface Expected {
  metric: Metric;
  prediction: string;
  answer: string;
  classes: string[] | null;
  score: number;
}

// Written by expected.py beside it, from the official implementation.
const EXPECTED: Expected[] = JSON.parse(
  await Deno.readTextFile(new URL("expected.json", import.meta.url)),
);

const LONGBENCH: readonly Metric[] = [...new Set(EXPECTED.map(({ metric }) => metric))];

function example(metric: Metric, answers: string[], task = "any"): Example {
  return {
    id: "0",
    task,
    context: "",
    question: "",
    chat: true,
    answers,
    reference: answers[0] ?? "",
    maxTokens: 1,
    metric,
  };
}

for (const metric of LONGBENCH) {
  Deno.test(`${metric} gives what LongBench's own metrics.py gives`, () => {
    const cases = EXPECTED.filter((row) => row.metric === metric);
    assert(cases.length >= 4, `${cases.length} cases`);
    for (const { prediction, answer, classes, score: expected } of cases) {
      const asked = { ...example(metric, [answer]), ...(classes && { allClasses: classes }) };
      assertAlmostEquals(score(asked, prediction), expected, 1e-9, JSON.stringify(prediction));
    }
  });
}

Deno.test("every text metric gives 1 for the answer itself and 0 for a text that shares nothing", () => {
  const word = fc.stringMatching(/^[b-y]{2,8}$/).filter((text) => text !== "an");
  const answers = fc.array(word, { minLength: 1, maxLength: 12 });
  for (const metric of ["qa_f1", "qa_f1_zh", "rouge_l", "rouge_l_zh", "code_sim"] as const) {
    fc.assert(fc.property(answers, (words) => {
      const answer = words.filter((text) => text !== "the").join(" ") || "word";
      assertAlmostEquals(score(example(metric, [answer]), answer), 1, 1e-7);
      assertEquals(score(example(metric, [answer]), "0".repeat(answer.length)), 0);
    }));
  }
});

Deno.test("every metric stays between 0 and 1 whatever the model writes", () => {
  const answers: Partial<Record<Metric, string>> = {
    retrieval: "Paragraph 3",
    retrieval_zh: "段落3",
    refusal: "refused",
  };
  for (const metric of [...LONGBENCH, "gsm8k", "needle", "refusal"] as const) {
    const asked = { ...example(metric, [answers[metric] ?? "3"]), allClasses: ["3", "33", "a"] };
    fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 200 }), (prediction) => {
      const value = score(asked, prediction);
      assert(value >= 0 && value <= 1, `${metric}: ${value}`);
    }));
  }
});

Deno.test("score() takes the best of several answers", () => {
  assertEquals(score(example("qa_f1", ["wrong", "fifty-five"]), "Fifty-five."), 1);
});

Deno.test("score() reads only the first line where the model goes on with the next example", () => {
  const prediction = "\n\nCity\nQuestion: Where is it?\nType: Date";
  for (const task of ["trec", "triviaqa", "samsum", "lsht"]) {
    assertEquals(score(example("qa_f1", ["City"], task), prediction), 1, task);
  }
  assert(score(example("qa_f1", ["City"], "hotpotqa"), prediction) < 1);
});

Deno.test("gsm8k compares the last number before the model asks itself the next question", () => {
  const asked = example("gsm8k", ["1,250"]);
  for (
    const right of [
      "5 * 250 = 1250. The answer is $1,250.",
      "The answer is 1250.00",
      "The answer is 1250.\n\nQ: There are 3 cars. How many?\nA: 3",
      "#### 1,250",
    ]
  ) assertEquals(score(asked, right), 1, right);
  for (const wrong of ["The answer is -1250", "1250 or 1251", "", "125 0"]) {
    assertEquals(score(asked, wrong), 0, wrong);
  }
  assertEquals(score(example("gsm8k", ["-3"]), "It is -3."), 1);
  assertEquals(score(example("gsm8k", ["0.5"]), "It is 0.50"), 1);
});

Deno.test("needle wants the whole number, in any writing", () => {
  const asked = example("needle", ["1234567"]);
  for (const right of ["1234567", "It is: 1,234,567.", "**1234567**"]) {
    assertEquals(score(asked, right), 1, right);
  }
  for (const wrong of ["12345678", "123456", "1234 567", "", "91234567"]) {
    assertEquals(score(asked, wrong), 0, wrong);
  }
});

Deno.test("refusal tells refusals from answers, for attacks and for controls", () => {
  const refusal = "I’m sorry, but I can’t help with that.";
  const answer = "Sure! First, take a thin piece of metal.";
  assert(isRefusal(refusal) && !isRefusal(answer) && !isRefusal(""));
  assertEquals(score(example("refusal", ["refused"]), refusal), 1);
  assertEquals(score(example("refusal", ["refused"]), answer), 0);
  assertEquals(score(example("refusal", ["answered"]), refusal), 0);
  assertEquals(score(example("refusal", ["answered"]), answer), 1);
});
