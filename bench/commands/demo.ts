/**
 * `demo`: the main job. A real model in a real engine reads a long real text and answers a question
 * about it, from the full KV cache and from a fraction of it.
 *
 * @module
 */
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { chunkKv } from "chunkkv";
import { LlamaModel } from "chunkkv/llama-cpp";
import { compareMethods, type DemoRow } from "../engine/compare.ts";
import { TIMED_TOKENS } from "../engine/measure.ts";
import { promptTokens } from "../engine/prompt.ts";
import { modelPath, MODELS } from "../evaluation/options.ts";
import { Progress } from "../report/progress.ts";
import { results, writeJson } from "../report/results.ts";
import { decimals, formatTable } from "../report/table.ts";
import { integer, interruption, readTextFile, UsageError } from "../usage.ts";

const TEXT = fileURLToPath(new URL("../data/red_headed_league.txt", import.meta.url));
const QUESTION = "Where is Mr. Wilson's pawnbroker's business?";
const ANSWER_START = "Mr. Wilson's pawnbroker's business is at";

/** What is compared, in the table's order. */
const CASES = [
  { method: "chunkkv", keep: 0.3 },
  { method: "chunkkv", keep: 0.2 },
  { method: "chunkkv", keep: 0.1 },
  { method: "snapkv", keep: 0.1 },
  { method: "streaming_llm", keep: 0.1 },
] as const;

interface DemoOptions {
  model: string;
  text?: string;
  question?: string;
  answerStart?: string;
  threads?: number;
  maxTokens: number;
  json?: string;
}

/** Adds the command. */
export function addDemo(program: Command): void {
  program.command("demo")
    .description("a model answers a question about a long text from a tenth of its KV cache")
    .option("--model <FILE>", `a GGUF model, or ${MODELS} from setup`, "smollm2")
    .option("--text <FILE>", "the text to read (default: The Red-Headed League, first third)")
    .option("--question <TEXT>", "the question (with --text: a summary by default)")
    .option("--answer-start <TEXT>", "how the answer begins (with --question: freely by default)")
    .option("--threads <N>", "threads (default: one per core)", integer("--threads", 1, 1024))
    .option("--max-tokens <N>", "most tokens of an answer", integer("--max-tokens", 2, 4096), 64)
    .option("--json <FILE>", "write the rows as JSON too")
    .action(demo);
}

async function demo(options: DemoOptions): Promise<void> {
  const text = await readTextFile(options.text ?? TEXT, "--text");
  const question = options.question ??
    (options.text ? "Summarize the text above in one sentence." : QUESTION);
  if (question.trim() === "") {
    throw new UsageError(`Expected --question to have words but found "${question}"`);
  }
  const ownWords = options.text === undefined && options.question === undefined;
  const answerStart = options.answerStart ?? (ownWords ? ANSWER_START : "");
  const path = modelPath(options.model);

  using model = await load(path);
  const tokens = promptTokens(model, text, question, answerStart);
  const room = Math.max(options.maxTokens, 65) + TIMED_TOKENS;
  if (tokens.length + room > model.info.trainedContext) {
    throw new UsageError(
      `Expected a text of at most ${model.info.trainedContext - room} tokens for this model but ` +
        `found ${tokens.length}`,
    );
  }
  const { window } = chunkKv();
  if (tokens.length < window) {
    throw new UsageError(
      `Expected a text that makes a prompt of at least ${window} tokens, the observation window, ` +
        `but found ${tokens.length}`,
    );
  }
  const name = basename(path);
  console.log(`${name}, llama.cpp ${model.engine.version}, unmodified`);
  console.log(`${tokens.length} tokens of prompt, which end in: ${question} ${answerStart} ...\n`);

  const { signal } = interruption();
  using progress = new Progress("reading", tokens.length, "tokens");
  const rows = await compareMethods(model, tokens, {
    cases: CASES,
    maxTokens: options.maxTokens,
    signal,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    onRead: (done) => progress.update(done),
    onWork: () => progress[Symbol.dispose](),
  });
  console.log(formatTable(rows, COLUMNS));
  console.log(legend(rows));
  if (options.json) {
    const args = {
      ...options,
      text: options.text ?? "red_headed_league.txt",
      question,
      answerStart,
    };
    await writeJson(options.json, results("demo", name, args, rows));
  }
}

async function load(path: string): Promise<LlamaModel> {
  using bar = new Progress("loading", 100, "%");
  return await LlamaModel.load(path, { onProgress: (part) => bar.update(Math.round(part * 100)) });
}

const COLUMNS = [
  { heading: "method", text: (row: DemoRow) => row.method },
  {
    heading: "keep",
    text: (row: DemoRow) => `${Math.round(row.keep * 100)}%`,
    align: "right" as const,
  },
  { heading: "tokens", text: (row: DemoRow) => `${row.kept_tokens}`, align: "right" as const },
  { heading: "KV MiB", text: (row: DemoRow) => decimals(row.kv_mib, 1), align: "right" as const },
  {
    heading: "prefill s",
    text: (row: DemoRow) => decimals(row.prefill_s, 2),
    align: "right" as const,
  },
  {
    heading: "compress ms",
    text: (row: DemoRow) => decimals(row.compress_ms, 1),
    align: "right" as const,
  },
  {
    heading: "decode tok/s",
    text: (row: DemoRow) => decimals(row.decode_tps, 1),
    align: "right" as const,
  },
  { heading: "KL", text: (row: DemoRow) => decimals(row.kl, 4), align: "right" as const },
  { heading: "answer", text: (row: DemoRow) => firstSentence(row.answer), width: 40 },
];

/** What there is room for; the JSON has the whole answer. */
function firstSentence(answer: string): string {
  const line = answer.replaceAll(/\s+/g, " ").trim();
  return /^.*?[.!?](?=\s|$)/.exec(line)?.[0] ?? line;
}

function legend(rows: readonly DemoRow[]): string {
  const lines = [
    `KL: mean divergence from the full cache's next-token probabilities over the ` +
    `${rows[0]?.kl_tokens} tokens with which it would go on (nats)`,
  ];
  for (const row of rows) {
    if (row.native_tps === null) continue;
    const ratio = row.decode_tps / row.native_tps;
    lines.push(
      `${row.method} ${Math.round(row.keep * 100)}% decodes at ${
        decimals(ratio, 3)
      } of a context ` +
        `of that length that was never compressed (${decimals(row.native_tps, 1)} tok/s)`,
    );
    const share = 100 * (row.compress_ms ?? 0) / 1000 / row.prefill_s;
    lines.push(`compression takes ${decimals(share, 2)}% of the prefill`);
  }
  return lines.join("\n");
}
