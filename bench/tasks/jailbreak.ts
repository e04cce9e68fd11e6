/**
 * JailbreakV (arXiv 2404.03027), its attacks in text, beside harmless requests as controls: a model
 * that refuses everything must not score well.
 *
 * @module
 */
import { join } from "node:path";
import * as v from "valibot";
import type { Behaviour } from "../metrics/refusal.ts";
import { UsageError } from "../usage.ts";
import { chosenTasks, draw } from "./draw.ts";
import { CONTROLS, type Example, type LoadOptions } from "./example.ts";
import { checkRow, formatError, listFiles, readRows, type Row, sample, stem } from "./rows.ts";

const MAX_TOKENS = 64;
// JailbreakV's other formats carry the attack in an image.
const TEXT_FORMATS = ["template", "persuade", "logic"];
const ID = v.nullish(v.union([v.string(), v.number()]));
const ATTACK = v.looseObject({ id: ID, jailbreak_query: v.string(), format: v.string() });
const CONTROL = v.looseObject({ id: ID, prompt: v.string() });
const GOAL = v.looseObject({ Index: ID, Goal: v.string() });

/**
 * Attacks (tasks `template`, `persuade`, `logic`) and controls (`benign`).
 *
 * @param dir A folder with CSV or JSONL files. A row with `jailbreak_query` and `format` is an
 * attack, one with `prompt`, or with JailbreakBench's `Goal` in a file named `*benign*`, a control;
 * attacks that need an image are left out; undefined: the sample.
 */
export async function load(dir: string | undefined, options: LoadOptions): Promise<Example[]> {
  const folder = dir ?? sample("jailbreak");
  const files = await listFiles(folder, [".csv", ".jsonl"]);
  const examples: Example[] = [];
  const known = new Set<string>();
  for (const name of files) {
    const rows = await readRows(join(folder, name));
    const own = rows.flatMap((row, i) => toExample(row, name, i) ?? []);
    // The mini set's attacks are in the whole one again.
    for (const example of own) if (!known.has(textOf(example))) examples.push(example);
    for (const example of own) known.add(textOf(example));
  }
  if (examples.length === 0) {
    throw new UsageError(
      `Expected --data to name a folder with JailbreakV's CSV or JSONL but found ` +
        `${files.join(", ") || "none"} in "${folder}"`,
    );
  }
  const tasks = chosenTasks([...new Set(examples.map(({ task }) => task))], options.tasks);
  return draw(examples.filter(({ task }) => tasks.includes(task)), options);
}

function textOf({ task, context }: Example): string {
  return JSON.stringify([task, context]);
}

function toExample(row: Row<unknown>, file: string, index: number): Example | undefined {
  const name = stem(file);
  const keys = typeof row.value === "object" && row.value ? Object.keys(row.value) : [];
  if (keys.includes("jailbreak_query")) {
    const { value } = checkRow(row, ATTACK);
    const format = value.format.toLowerCase();
    if (!TEXT_FORMATS.includes(format)) return undefined;
    return request(format, `${name}/${value.id ?? index}`, value.jailbreak_query, "refused");
  }
  if (keys.includes("prompt")) {
    const { value } = checkRow(row, CONTROL);
    return request(CONTROLS, `${name}/${value.id ?? index}`, value.prompt, "answered");
  }
  if (keys.includes("Goal") && file.includes("benign")) {
    const { value } = checkRow(row, GOAL);
    return request(CONTROLS, `${name}/${value.Index ?? index}`, value.Goal, "answered");
  }
  // RedTeam_2K, which lies beside the attacks that were made of it.
  if (keys.includes("question") && keys.includes("policy")) return undefined;
  throw formatError(row.place, '"jailbreak_query" or "prompt" in every row', keys);
}

function request(
  task: string,
  id: string,
  prompt: string,
  behaviour: Behaviour,
): Example {
  return {
    id,
    task,
    context: prompt,
    question: "",
    chat: true,
    answers: [behaviour],
    reference: behaviour === "refused" ? "I'm sorry, but I can't assist with that." : "Sure!",
    maxTokens: MAX_TOKENS,
    metric: "refusal",
  };
}
