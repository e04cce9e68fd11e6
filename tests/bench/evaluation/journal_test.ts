import { assertEquals, assertThrows } from "@std/assert";
import { exampleHash, Journal } from "../../../bench/evaluation/journal.ts";
import type { ExampleRow } from "../../../bench/evaluation/rows.ts";
import type { Example } from "../../../bench/tasks/example.ts";
import { UsageError } from "../../../bench/usage.ts";

const SETTINGS = { command: "needle", window: 32 };
const FULL = { method: "full", keep: 1, reuse: 1 };
const CHUNKKV = { method: "chunkkv", keep: 0.1, reuse: 1 };

function row(id: string, one: typeof FULL): ExampleRow {
  return {
    id,
    task: "needle",
    ...one,
    score: 1,
    nll: 0.5,
    kl: 0,
    prompt_tokens: 100,
    kept_tokens: 10,
    window: 5,
    compress_ms: 1,
    answer: "42\n",
  };
}

/** Runs with the path of a file that is not there yet. */
async function withPath(use: (path: string) => void): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    use(`${folder}/journal.jsonl`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("a journal that is opened again has its rows, those of other prompts left out", () =>
  withPath((path) => {
    {
      using first = new Journal(path, SETTINGS);
      first.add([row("a", FULL), row("a", CHUNKKV)], "7-x");
      const text = Deno.readTextFileSync(path);
      assertThrows(() => new Journal(path, SETTINGS), UsageError, "in use by another one");
      assertEquals(Deno.readTextFileSync(path), text);
    }
    using again = new Journal(path, SETTINGS);
    assertEquals(again.find("needle/a", CHUNKKV, "7-x"), row("a", CHUNKKV));
    assertEquals(again.find("needle/a", { ...CHUNKKV, keep: 0.2 }, "7-x"), undefined);
    assertEquals(again.find("needle/b", CHUNKKV, "7-x"), undefined);
    assertEquals(again.find("needle/a", CHUNKKV, "8-y"), undefined);
  }));

Deno.test("half a line at the end, of a run that was killed, is written anew", () =>
  withPath((path) => {
    {
      using journal = new Journal(path, SETTINGS);
      journal.add([row("a", FULL)], "7-x");
    }
    const whole = Deno.readTextFileSync(path);
    Deno.writeTextFileSync(path, `${whole}{"id":"a","met`);
    {
      using journal = new Journal(path, SETTINGS);
      assertEquals(journal.find("needle/a", FULL, "7-x"), row("a", FULL));
      journal.add([row("b", FULL)], "7-x");
    }
    const lines = Deno.readTextFileSync(path).trim().split("\n");
    assertEquals(lines.length, 3);
    lines.forEach((line) => JSON.parse(line));
    // Killed while the first line was written.
    Deno.writeTextFileSync(path, '{"command":"ne');
    using anew = new Journal(path, SETTINGS);
    anew.add([row("c", FULL)], "7-x");
    assertEquals(Deno.readTextFileSync(path).split("\n")[0], JSON.stringify(SETTINGS));
  }));

Deno.test("journals of other settings, other files and broken rows are refused and left alone", () =>
  withPath((path) => {
    const refuse = (text: string, words: string) => {
      Deno.writeTextFileSync(path, text);
      assertThrows(() => new Journal(path, SETTINGS), UsageError, words);
      assertEquals(Deno.readTextFileSync(path), text);
    };
    refuse('{"command":"needle","window":16}\n', "a journal of window 32 but found");
    refuse('{"command":"needle"}\n', "of window not set");
    refuse("Once upon a time\n", 'begins with "Once upon a time"');
    refuse("Once upon a time", 'begins with "Once upon a time"');
    refuse(`${JSON.stringify(SETTINGS)}\nOnce\n`, "Expected a row in line 2");
    assertThrows(() => new Journal("/nowhere/journal", SETTINGS), UsageError, "a writable file");
    if (Deno.build.os === "windows") return;
    assertThrows(
      () => new Journal("/dev/null", SETTINGS),
      UsageError,
      "a file but found the device",
    );
  }));

Deno.test("an example's hash tells prompts apart, and what answers are judged by", () => {
  const example: Example = {
    ...{ id: "a", task: "qasper", context: "", question: "", chat: true, answers: ["42"] },
    ...{ reference: " 42", maxTokens: 32, metric: "qa_f1" },
  };
  const hashes = [[1, 2, 3], [1, 3, 2], [1, 2], [1, 2, 3, 0]].map((tokens) =>
    exampleHash(Int32Array.from(tokens), example)
  );
  const others: Partial<Example>[] = [
    { answers: ["43"] },
    { reference: " 43" },
    { maxTokens: 33 },
    { stop: ["\n"] },
    { metric: "rouge_l" },
    { allClasses: ["42"] },
  ];
  const tokens = Int32Array.of(0, 1, 2, 3).subarray(1);
  hashes.push(...others.map((other) => exampleHash(tokens, { ...example, ...other })));
  assertEquals(new Set(hashes).size, 10);
  assertEquals(exampleHash(tokens, { ...example, id: "b" }), hashes[0]);
});
