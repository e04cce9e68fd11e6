import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { score } from "../../../bench/metrics/score.ts";
import { type Example, type Load, promptText } from "../../../bench/tasks/example.ts";
import { load as gsm8k } from "../../../bench/tasks/gsm8k.ts";
import { load as jailbreak } from "../../../bench/tasks/jailbreak.ts";
import { load as longbench } from "../../../bench/tasks/longbench.ts";
import { load as needle } from "../../../bench/tasks/needle.ts";
import { UsageError } from "../../../bench/usage.ts";
import { withFiles } from "./folder.ts";

const LOADERS: Record<string, Load> = { needle, longbench, gsm8k, jailbreak };
const ROW = {
  input: " Who? ",
  context: "Ann did it. {input}",
  answers: ["Ann"],
  all_classes: null,
};

function jsonl(...rows: unknown[]): string {
  return rows.map((row) => JSON.stringify(row)).join("\n") + "\n";
}

for (const [name, load] of Object.entries(LOADERS)) {
  Deno.test(`${name} without a folder reads a sample whose references score 1`, async () => {
    const examples = await load(undefined, { seed: 1 });
    assert(examples.length >= 6, `${examples.length} examples`);
    const ids = new Set(examples.map(({ task, id }) => `${task} ${id}`));
    assertEquals(ids.size, examples.length);
    for (const example of examples) {
      assert(example.context.length > 20 && example.maxTokens > 0, example.id);
      if (example.metric === "refusal") continue;
      const value = score(example, example.reference);
      assert(value > 0.999, `${example.task} ${example.id}: ${value}`);
    }
  });

  Deno.test(`${name} draws the same examples from the same seed, in order`, async () => {
    const options = { seed: 7, limit: 2 };
    const drawn = await load(undefined, options);
    assertEquals(drawn, await load(undefined, options));
    const groups = Map.groupBy(drawn, ({ task, length }) => `${task} ${length}`);
    for (const group of groups.values()) assert(group.length <= 2);
    const all = (await load(undefined, { seed: 7 })).map(({ id, task }) => `${task} ${id}`);
    const places = drawn.map(({ id, task }) => all.indexOf(`${task} ${id}`));
    assertEquals(places, places.toSorted((a, b) => a - b));
    const others = await Promise.all(
      [1, 2, 3, 4].map((seed) => load(undefined, { ...options, seed })),
    );
    assert(others.some((other) => JSON.stringify(other) !== JSON.stringify(drawn)));
  });

  Deno.test(`${name} says which tasks and files it expected`, async () => {
    const options = { seed: 1 };
    await assertRejects(
      () => load(undefined, { ...options, tasks: ["hotpotq"] }),
      UsageError,
      'but found "hotpotq"',
    );
    await assertRejects(() => load("/nowhere", options), UsageError, 'found "/nowhere"');
    await withFiles({ "notes.md": "nothing" }, async (dir) => {
      await assertRejects(() => load(dir, options), UsageError, "Expected --data to name a folder");
    });
  });
}

Deno.test("longbench joins the official prompt byte for byte", async () => {
  const files = {
    "hotpotqa.jsonl": jsonl(ROW),
    "multi_news.jsonl": jsonl({ ...ROW, input: "" }),
    "lcc.jsonl": jsonl({ ...ROW, input: "" }),
    "trec.jsonl": jsonl({ ...ROW, input: "Type:", answers: ["A"], all_classes: ["A", "B"] }),
  };
  await withFiles(files, async (dir) => {
    const examples = await longbench(dir, { seed: 1 });
    const [hotpotqa, lcc, news, trec] = ["hotpotqa", "lcc", "multi_news", "trec"].map((task) =>
      examples.find((example) => example.task === task)!
    ) as [Example, Example, Example, Example];
    const order = "Answer the question based on the given passages. Only give me the answer and " +
      "do not output any other words.";
    assertEquals(
      promptText(hotpotqa),
      `${order}\n\nThe following are given passages.\nAnn did it. {input}\n\n${order}\n\n` +
        "Question:  Who? \nAnswer:",
    );
    assertEquals(
      promptText(lcc),
      "Please complete the code given below. \nAnn did it. {input}Next line of code:\n",
    );
    assertEquals(
      promptText(news),
      "You are given several news passages. Write a one-page summary of all news. \n\nNews:\n" +
        "Ann did it. {input}\n\nNow, write a one-page summary of all the news.\n\nSummary:",
    );
    assertEquals(examples.map(({ chat }) => chat), [true, false, true, false]);
    assertEquals([hotpotqa.maxTokens, lcc.maxTokens, news.maxTokens], [32, 64, 512]);
    assertEquals([hotpotqa.reference, lcc.reference, trec.reference], ["Ann", "Ann", " A"]);
    assertEquals(trec.allClasses, ["A", "B"]);
  });
});

Deno.test("longbench takes the folder's own prompts, and LongBench-E's files", async () => {
  const files = {
    "qasper_e.jsonl": jsonl(ROW),
    "config/dataset2prompt.json": JSON.stringify({ qasper: "<{context}|{input}>" }),
    "maxlen.json": JSON.stringify({ qasper: 5 }),
    "unknown.jsonl": "is not read",
  };
  await withFiles(files, async (dir) => {
    const [example] = await longbench(dir, { seed: 1 });
    assertEquals([example!.task, example!.maxTokens], ["qasper_e", 5]);
    assertEquals(promptText(example!), "<Ann did it. {input}| Who? >");
    await Deno.writeTextFile(`${dir}/qasper.jsonl`, jsonl(ROW));
    const both = await longbench(dir, { seed: 1 });
    assertEquals(both.map(({ task, metric }) => [task, metric]), [
      ["qasper", "qa_f1"],
      ["qasper_e", "qa_f1"],
    ]);
    assertEquals((await longbench(dir, { seed: 1, tasks: ["qasper_e"] })).length, 1);
  });
});

Deno.test("errors name file, line, and what was expected and found", async () => {
  const second = (row: unknown) => ({ "hotpotqa.jsonl": jsonl(ROW, row) });
  const cases: [Load, Record<string, string>, string, string][] = [
    [longbench, second({ ...ROW, answers: "Ann" }), "hotpotqa.jsonl:2", '"answers" to be Array'],
    [longbench, second({ ...ROW, answers: [] }), "hotpotqa.jsonl:2", "at least one answer"],
    [longbench, second({ input: "" }), "hotpotqa.jsonl:2", "found none; the row has input"],
    [longbench, second([1]), "hotpotqa.jsonl:2", "Expected"],
    [longbench, { "hotpotqa.jsonl": jsonl(ROW) + "\n{oops" }, "hotpotqa.jsonl:3", "Expected JSON"],
    [longbench, { "hotpotqa.jsonl": "\n" }, "hotpotqa.jsonl", "at least one row"],
    [longbench, { "trec.jsonl": jsonl(ROW) }, "trec.jsonl:1", "classes of trec but found null"],
    [
      longbench,
      { "qasper.jsonl": jsonl(ROW), "prompts.json": '{"qasper": "no place"}' },
      "prompts.json",
      "one {context}",
    ],
    ...["{input} {context}", "{context} {input} {input}", "{input}{context}{input}"].map((prompt) =>
      [
        longbench,
        { "qasper.jsonl": jsonl(ROW), "prompts.json": JSON.stringify({ qasper: prompt }) },
        "prompts.json",
        "one {input}, after the {context}",
      ] as [Load, Record<string, string>, string, string]
    ),
    [
      gsm8k,
      { "test.jsonl": jsonl({ question: "1 + 1?", answer: "2" }) },
      "test.jsonl:1",
      'ends in "#### 42"',
    ],
    [
      gsm8k,
      {
        "test.jsonl": jsonl({ question: "1 + 1?", answer: "#### 2" }),
        "train.jsonl": jsonl({ question: "1 + 1?", answer: "#### 2" }),
      },
      "train.jsonl",
      "at least 8 rows but found 1",
    ],
    [jailbreak, { "a.jsonl": jsonl({ text: "hello" }) }, "a.jsonl:1", '"jailbreak_query"'],
    [jailbreak, { "a.csv": "id,jailbreak_query\n0,hi\n" }, "a.csv:2", '"format"'],
    [jailbreak, { "a.csv": 'id,jailbreak_query\n0,"hi\n' }, "a.csv", "Expected CSV"],
  ];
  for (const [load, files, place, expected] of cases) {
    await withFiles(files, async (dir) => {
      const { message } = await assertRejects(() => load(dir, { seed: 1 }), UsageError, place);
      assertStringIncludes(message, expected);
    });
  }
});

Deno.test("gsm8k shows eight worked problems without the calculator's marks", async () => {
  const [example] = await gsm8k(undefined, { seed: 1 });
  const { context, question, reference } = example!;
  assertEquals(context.match(/^Q: /gm)?.length, 8);
  assertEquals(context.match(/^A: .* The answer is \d+\.$/gm)?.length, 8);
  assert(!/<<|####/.test(context + reference));
  assert(context.endsWith("\n\n") && question.endsWith("\nA:") && reference.startsWith(" "));
});

Deno.test("jailbreak reads CSV with line breaks in cells, and leaves images out", async () => {
  const files = {
    "mini.csv": "id,jailbreak_query,redteam_query,format,policy,image_path\n" +
      '0,"Play a role.\n""Max"", open the door.",Open the door,Template,Sample,\n' +
      "1,See the picture,Open the door,figstep,Sample,a.png\n",
    // The whole set repeats what the small one has, and attacks with other images.
    "whole.csv": "id,jailbreak_query,redteam_query,format,policy,image_path\n" +
      '7,"Play a role.\n""Max"", open the door.",Open the door,Template,Sample,b.png\n' +
      "8,It is only logical,Open the door,Logic,Sample,b.png\n" +
      "9,It is only logical,Open the door,Logic,Sample,c.png\n",
    "RedTeam_2K.csv": "id,question,policy,from\n0,Open the door,Sample,LLM\n",
    "benign-behaviors.csv": "Index,Goal,Target\n0,Bake bread,Sure\n",
  };
  await withFiles(files, async (dir) => {
    const examples = await jailbreak(dir, { seed: 1 });
    assertEquals(examples.map(({ task, context, answers }) => [task, context, answers]), [
      ["benign", "Bake bread", ["answered"]],
      ["template", 'Play a role.\n"Max", open the door.', ["refused"]],
      ["logic", "It is only logical", ["refused"]],
      ["logic", "It is only logical", ["refused"]],
    ]);
    assertEquals((await jailbreak(dir, { seed: 1, tasks: ["benign"] })).length, 1);
  });
});
