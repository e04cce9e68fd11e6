/**
 * A text longer than the cache, with a needle at each of five depths: read through 8,192 cells with
 * `streaming`, and beside it by a context that holds all of it.
 *
 *     deno run --allow-read --allow-env --allow-ffi --allow-sys bench/engine/streaming_needle.ts \
 *       --model gemma-3-270m.gguf --text essays.txt
 *
 * @module
 */
import { Command } from "commander";
import { type LlamaContext, LlamaModel } from "chunkkv/llama-cpp";
import { gemmaPath } from "../../tools/paths.ts";
import { logSoftmax } from "../metrics/divergence.ts";
import { decimals, formatTable } from "../report/table.ts";
import { integer } from "../usage.ts";

const DEPTHS = [0.1, 0.3, 0.5, 0.7, 0.9];
const CITIES = ["Lisbon", "Nairobi", "Oslo", "Hanoi", "Quito"];
const NUMBERS = ["58213", "90467", "31780", "74925", "26148"];

interface Row {
  depth: number;
  full: Answer;
  streamed: Answer;
}

interface Answer {
  isFound: boolean;
  /** Mean negative log-likelihood of the number's tokens. */
  nll: number;
}

/** The text's first `count` tokens, with the needles between its sentences. */
function haystack(model: LlamaModel, text: string, count: number): string {
  const tokens = model.tokenizer.tokenize(text);
  if (tokens.length < count) {
    throw new Error(`Expected a text of ${count} tokens but found ${tokens.length}: give --text`);
  }
  const cut = model.tokenizer.detokenize(tokens.slice(0, count));
  const sentences = cut.split(/(?<=[.!?])\s+/);
  const places = DEPTHS.map((depth) => Math.floor(depth * sentences.length));
  return sentences.map((sentence, i) => {
    const needle = places.indexOf(i);
    if (needle < 0) return sentence;
    return `${sentence} The special magic number of ${CITIES[needle]} is ${NUMBERS[needle]}.`;
  }).join(" ");
}

/** Asks for each needle from the same state. */
async function askAll(model: LlamaModel, context: LlamaContext): Promise<Answer[]> {
  const state = context.saveState();
  const answers: Answer[] = [];
  for (const [i, city] of CITIES.entries()) {
    context.restoreState(state);
    const question = `\n\nThe special magic number of ${city} is`;
    await context.prefill(model.tokenizer.tokenize(question));
    const number = model.tokenizer.tokenize(` ${NUMBERS[i]}`);
    let [nll, isFound] = [0, true];
    for (const token of number) {
      const logits = context.logits();
      nll -= (logSoftmax(logits)[token] ?? NaN) / number.length;
      isFound = isFound && logits.every((logit) => logit <= logits[token]!);
      await context.prefill([token]);
    }
    answers.push({ isFound, nll });
  }
  return answers;
}

const options = new Command("streaming_needle")
  .option("--model <FILE>", "GGUF model; default Gemma 3 270M")
  .requiredOption("--text <FILE>", "a long text")
  .option("--tokens <N>", "tokens of it", integer("--tokens", 100), 24_000)
  .option("--cells <N>", "cells of the streamed context", integer("--cells", 256), 8192)
  .parse(Deno.args, { from: "user" })
  .opts<{ model?: string; text: string; tokens: number; cells: number }>();

using model = await LlamaModel.load(options.model ?? gemmaPath());
const text = haystack(model, await Deno.readTextFile(options.text), options.tokens);

async function measure(contextSize: number, streaming: boolean): Promise<Answer[]> {
  using context = model.createContext({ contextSize });
  const report = await context.prefill(text, { streaming });
  const seconds = (report.milliseconds / 1000).toFixed(0);
  console.error(
    `${report.tokens} tokens in ${context.cellCount()} of ${contextSize} cells, ${seconds} s, ` +
      `${report.compactions ?? 0} compactions`,
  );
  return await askAll(model, context);
}

const streamed = await measure(options.cells, true);
const full = await measure(Math.ceil((options.tokens + 1000) / 256) * 256, false);
const rows: Row[] = DEPTHS.map((depth, i) => ({ depth, full: full[i]!, streamed: streamed[i]! }));
const found = (answer: Answer) => answer.isFound ? "found" : "-";
console.log(formatTable(rows, [
  { heading: "depth", text: (row) => `${100 * row.depth}%` },
  { heading: "full cache", text: (row) => found(row.full) },
  { heading: "nll", text: (row) => decimals(row.full.nll, 2) },
  { heading: "streamed", text: (row) => found(row.streamed) },
  { heading: "nll", text: (row) => decimals(row.streamed.nll, 2) },
]));
