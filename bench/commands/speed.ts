/**
 * `speed`: prefill, compression and decoding in an engine, beside contexts that were never longer.
 *
 * @module
 */
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import type { LlamaContext, LlamaContextOptions, LlamaModel } from "chunkkv/llama-cpp";
import { type CaseSpeed, decodeRates, TIMED_TOKENS } from "../engine/measure.ts";
import { allCases, type Case, compressOptions, FULL, methodLabel } from "../evaluation/cases.ts";
import {
  addModelOptions,
  comparedMethods,
  type ModelOptions,
  modelPath,
} from "../evaluation/options.ts";
import { loadModel } from "../evaluation/run.ts";
import { percent } from "../evaluation/tables.ts";
import { renderHtml } from "../report/html.ts";
import { Progress } from "../report/progress.ts";
import { results, writeJson, writeReport } from "../report/results.ts";
import { decimals, formatTable } from "../report/table.ts";
import { integer, list, readTextFile, UsageError } from "../usage.ts";

const TEXT = fileURLToPath(new URL("../data/red_headed_league.txt", import.meta.url));

interface SpeedOptions extends ModelOptions {
  promptTokens: number[];
  text?: string;
}

/** One line: snake_case, as in the JSON. */
interface SpeedRow extends Case, CaseSpeed {
  prompt_tokens: number;
}

/** Adds the command. */
export function addSpeed(program: Command): void {
  addModelOptions(
    program.command("speed")
      .description("prefill, compression and decoding, beside contexts that were never longer")
      .option(
        "--prompt-tokens <LIST>",
        "lengths of prompts",
        list("--prompt-tokens", integer("--prompt-tokens", 64)),
        [1000, 4000],
      )
      .option("--text <FILE>", "what prompts are made of, repeated where it is too short"),
  ).action(async (given: SpeedOptions, command: Command) => {
    const isGiven = (option: string) => command.getOptionValueSource(option) !== "default";
    await speed({
      ...given,
      ...(given.quick && !isGiven("promptTokens") ? { promptTokens: [256] } : {}),
      ...(given.quick && !isGiven("keeps") ? { keeps: [0.2] } : {}),
    });
  });
}

async function speed(options: SpeedOptions): Promise<void> {
  const text = await readTextFile(options.text ?? TEXT, "--text");
  using model = await loadModel(options);
  const longest = Math.max(...options.promptTokens);
  if (longest + TIMED_TOKENS > model.info.trainedContext) {
    throw new UsageError(
      `Expected --prompt-tokens of at most ${model.info.trainedContext - TIMED_TOKENS} for this ` +
        `model but found ${longest}`,
    );
  }
  const cases = allCases(comparedMethods(options), options.keeps, options, options.reuse);
  using progress = new Progress(
    "measuring",
    options.promptTokens.length * (cases.length + 1),
    "rows",
  );
  const rows: SpeedRow[] = [];
  for (const length of options.promptTokens) {
    const prompt = repeated(model, text, length);
    await measure(model, prompt, cases, options, (row) => progress.update(rows.push(row)));
  }
  progress[Symbol.dispose]();
  const name = basename(modelPath(options.model));
  console.log(`${name}, llama.cpp ${model.engine.version}`);
  console.log(table(rows));
  const value = results("speed", name, { ...options }, rows);
  if (options.json) await writeJson(options.json, value);
  if (options.html) await writeReport(options.html, "--html", await renderHtml(value));
}

/** The text's tokens, again and again, up to a length. */
function repeated(model: LlamaModel, text: string, length: number): Int32Array<ArrayBuffer> {
  const once = model.tokenizer.tokenize(text, { addSpecial: true });
  if (once.length === 0) throw new UsageError("Expected --text to have a token but found none");
  return Int32Array.from({ length }, (_, i) => once[i % once.length]!);
}

/** The full cache, then each case, of one prompt. */
async function measure(
  model: LlamaModel,
  prompt: Int32Array<ArrayBuffer>,
  cases: readonly Case[],
  options: SpeedOptions,
  onRow: (row: SpeedRow) => void,
): Promise<void> {
  const settings = {
    contextSize: prompt.length + TIMED_TOKENS,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  };
  using plain = await read(model, prompt, settings);
  // Adding up attention costs time while the prompt is read, so only what needs it has it.
  const needsAttention = cases.some(({ method }) => method === "h2o");
  using adding = needsAttention
    ? await read(model, prompt, { ...settings, accumulateAttention: true })
    : null;
  const { context } = plain;
  const [fullTps] = await decodeRates([context]);
  onRow({
    prompt_tokens: prompt.length,
    ...FULL,
    ...plain.size,
    prefill_s: plain.seconds,
    compress_ms: null,
    select_ms: null,
    decode_tps: fullTps!,
    native_tps: null,
  });
  for (const one of cases) {
    const { context: reader, before, seconds } = one.method === "h2o" ? adding! : plain;
    reader.restore(before);
    await reader.prefill(prompt.subarray(-1));
    const report = reader.compress(compressOptions(one, options, prompt.length));
    const size = kvSize(reader);
    if (reader !== context) move(reader, context);
    using native = model.createContext(settings);
    await native.prefill(prompt.subarray(0, size.kept_tokens));
    const [tps, nativeTps] = await decodeRates([context, native]);
    onRow({
      prompt_tokens: prompt.length,
      ...one,
      ...size,
      prefill_s: seconds,
      compress_ms: report.selectMilliseconds + report.compactMilliseconds,
      select_ms: report.selectMilliseconds,
      decode_tps: tps!,
      native_tps: nativeTps!,
    });
  }
}

/** A context with the prompt, and what it was before the last token, which compression follows. */
async function read(
  model: LlamaModel,
  prompt: Int32Array<ArrayBuffer>,
  settings: LlamaContextOptions,
) {
  const context = model.createContext(settings);
  const head = await context.prefill(prompt.subarray(0, -1));
  const before = context.snapshot();
  const last = await context.prefill(prompt.subarray(-1));
  return {
    context,
    before,
    seconds: (head.milliseconds + last.milliseconds) / 1000,
    size: kvSize(context),
    [Symbol.dispose]() {
      before[Symbol.dispose]();
      context[Symbol.dispose]();
    },
  };
}

function move(from: LlamaContext, to: LlamaContext): void {
  using moved = from.snapshot();
  to.restore(moved);
}

function kvSize(context: LlamaContext): Pick<SpeedRow, "kept_tokens" | "kv_mib"> {
  return { kept_tokens: context.cellCount(), kv_mib: context.kvBytes() / 2 ** 20 };
}

function table(rows: readonly SpeedRow[]): string {
  const right = { align: "right" } as const;
  return formatTable(rows, [
    { heading: "prompt", text: (row) => `${row.prompt_tokens}`, ...right },
    { heading: "method", text: methodLabel },
    { heading: "keep", text: (row) => percent(row.keep), ...right },
    { heading: "tokens", text: (row) => `${row.kept_tokens}`, ...right },
    { heading: "KV MiB", text: (row) => decimals(row.kv_mib, 1), ...right },
    { heading: "prefill s", text: (row) => decimals(row.prefill_s, 2), ...right },
    { heading: "compress ms", text: (row) => decimals(row.compress_ms, 1), ...right },
    { heading: "of prefill", text: ofPrefill, ...right },
    { heading: "decode tok/s", text: (row) => decimals(row.decode_tps, 1), ...right },
    { heading: "native tok/s", text: (row) => decimals(row.native_tps, 1), ...right },
  ]);
}

function ofPrefill({ compress_ms, prefill_s }: SpeedRow): string {
  return compress_ms === null ? "-" : `${decimals(compress_ms / 10 / prefill_s, 2)}%`;
}
