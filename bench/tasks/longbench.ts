/**
 * LongBench (arXiv 2308.14508): `<task>.jsonl` files, and its prompts and answer lengths.
 *
 * @module
 */
import { join } from "node:path";
import * as v from "valibot";
import { UsageError } from "../usage.ts";
import { chosenTasks, draw } from "./draw.ts";
import type { Example, LoadOptions, Metric } from "./example.ts";
import { formatError, listFiles, readJson, readRowsAs, type Row, sample, stem } from "./rows.ts";

/** The metric of each task. */
export const LONGBENCH_METRICS: Readonly<Record<string, Metric>> = {
  narrativeqa: "qa_f1",
  qasper: "qa_f1",
  multifieldqa_en: "qa_f1",
  multifieldqa_zh: "qa_f1_zh",
  hotpotqa: "qa_f1",
  "2wikimqa": "qa_f1",
  musique: "qa_f1",
  dureader: "rouge_l_zh",
  gov_report: "rouge_l",
  qmsum: "rouge_l",
  multi_news: "rouge_l",
  vcsum: "rouge_l_zh",
  trec: "classification",
  triviaqa: "qa_f1",
  samsum: "rouge_l",
  lsht: "classification",
  passage_count: "count",
  passage_retrieval_en: "retrieval",
  passage_retrieval_zh: "retrieval_zh",
  lcc: "code_sim",
  "repobench-p": "code_sim",
};

// The official prediction script completes these without a chat template.
const RAW_TASKS = new Set(["trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"]);

const ROW = v.looseObject({
  input: v.string(),
  context: v.string(),
  answers: v.pipe(
    v.array(v.string()),
    v.check((answers) => answers.length > 0, "at least one answer"),
  ),
  all_classes: v.nullish(v.array(v.string())),
  length: v.nullish(v.number()),
  _id: v.nullish(v.string()),
});
type LongBenchRow = v.InferOutput<typeof ROW>;

/** Prompts and answer lengths by task. */
interface Config {
  prompts: Record<string, string>;
  maxTokens: Record<string, number>;
}

/**
 * Examples of every task in the folder.
 *
 * @param dir A folder with `<task>.jsonl` files, and `prompts.json` and `maxlen.json` (or
 * `dataset2prompt.json` and `dataset2maxlen.json`, there or in `config/`) where they shall replace
 * the official ones; undefined: the sample.
 */
export async function load(dir: string | undefined, options: LoadOptions): Promise<Example[]> {
  const folder = dir ?? sample("longbench");
  const files = await listFiles(folder, [".jsonl"]);
  const known = files.filter((name) => baseOf(stem(name)) in LONGBENCH_METRICS);
  if (known.length === 0) {
    throw new UsageError(
      `Expected --data to name a folder with files such as hotpotqa.jsonl but found ${
        files.join(", ") || "none"
      } in "${folder}"`,
    );
  }
  const config = await readConfig(folder);
  const examples: Example[] = [];
  for (const task of chosenTasks(known.map(stem), options.tasks)) {
    const rows = await readRowsAs(join(folder, `${task}.jsonl`), ROW);
    for (const [i, row] of rows.entries()) examples.push(toExample(task, row, i, config));
  }
  return draw(examples, options);
}

/** LongBench-E's tasks end in `_e`; they have other rows, and prompts and metrics of those without. */
export function baseOf(task: string): string {
  return task.replace(/_e$/, "");
}

function toExample(task: string, row: Row<LongBenchRow>, index: number, config: Config): Example {
  const { value } = row;
  const base = baseOf(task);
  const metric = LONGBENCH_METRICS[base]!;
  const prompt = fill(config.prompts[base]!, value);
  if (metric === "classification" && !value.all_classes?.length) {
    throw formatError(row.place, `"all_classes" to be the classes of ${task}`, value.all_classes);
  }
  const chat = !RAW_TASKS.has(base);
  const end = prompt.instructionAfter + prompt.question;
  const space = chat || /\s$/.test(end) ? "" : " ";
  return {
    id: value._id ?? String(index),
    task,
    ...prompt,
    context: value.context,
    chat,
    answers: value.answers,
    reference: space + value.answers[0]!,
    maxTokens: config.maxTokens[base]!,
    metric,
    ...(value.all_classes ? { allClasses: value.all_classes } : {}),
  };
}

/** The template's parts around the context; without `{input}` all after the context is question. */
function fill(template: string, row: LongBenchRow) {
  const [before, after] = template.split("{context}");
  const [middle, end] = after!.split("{input}");
  return end === undefined
    ? { instructionBefore: before!, instructionAfter: "", question: middle! }
    : { instructionBefore: before!, instructionAfter: middle!, question: row.input + end };
}

async function readConfig(folder: string): Promise<Config> {
  const template = v.pipe(
    v.string(),
    v.check((text) => text.split("{context}").length === 2, "a prompt with one {context}"),
    v.check((text) => {
      const parts = text.split("{input}");
      return parts.length === 1 || parts.length === 2 && parts[0]!.includes("{context}");
    }, "a prompt with at most one {input}, after the {context}"),
  );
  const prompts = v.record(v.string(), template);
  const lengths = v.record(v.string(), v.pipe(v.number(), v.integer(), v.minValue(1)));
  const official = sample("longbench_config");
  return {
    prompts: {
      ...await firstOf(official, ["prompts.json"], prompts),
      ...await firstOf(folder, ["prompts.json", "dataset2prompt.json"], prompts),
    },
    maxTokens: {
      ...await firstOf(official, ["maxlen.json"], lengths),
      ...await firstOf(folder, ["maxlen.json", "dataset2maxlen.json"], lengths),
    },
  };
}

async function firstOf<T>(
  folder: string,
  names: readonly string[],
  schema: v.BaseSchema<unknown, T, v.BaseIssue<unknown>>,
): Promise<T | undefined> {
  for (const place of [folder, join(folder, "config")]) {
    for (const name of names) {
      const found = await readJson(join(place, name), schema);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}
