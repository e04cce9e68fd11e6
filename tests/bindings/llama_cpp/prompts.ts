/**
 * Texts for the models to read: plain English with facts in it, of any length.
 *
 * @module
 */
import type { LlamaModel } from "chunkkv/llama-cpp";

const PLACES = ["harbour", "library", "orchard", "mill", "station", "chapel", "garden", "tower"];
const THINGS = ["lamp", "ledger", "violin", "compass", "kettle", "map", "clock", "lantern"];
const PEOPLE = ["Ada", "Bruno", "Clara", "Dmitri", "Edith", "Farid", "Greta", "Hugo"];
const COLOURS = ["red", "green", "blue", "white", "amber", "grey", "black", "silver"];

/**
 * A text.
 *
 * @param sentences How many sentences it has, each of some 20 tokens.
 * @param start Which sentence is the first: others make another text.
 */
export function story(sentences: number, start = 0): string {
  const lines: string[] = [];
  for (let i = start; i < start + sentences; i++) {
    const person = PEOPLE[(i * 5 + 1) % 8];
    const other = PEOPLE[(i * 3 + 4) % 8];
    const place = PLACES[(i * 7 + 2) % 8];
    const thing = THINGS[(i * 11 + Math.floor(i / 8)) % 8];
    const colour = COLOURS[(i * 13 + Math.floor(i / 3)) % 8];
    lines.push(
      `On day ${i + 1} ${person} left the ${colour} ${thing} in the ${place}, where ${other} ` +
        `found it ${(i * 17) % 29 + 2} hours later.`,
    );
  }
  return lines.join(" ");
}

/**
 * The first tokens of a text that is long enough.
 *
 * @param model Whose tokens.
 * @param count How many.
 * @param start Which sentence is the first.
 */
export function storyTokens(model: LlamaModel, count: number, start = 0): Int32Array<ArrayBuffer> {
  const text = story(Math.ceil(count / 12) + 4, start);
  const tokens = model.tokenizer.tokenize(text, { addSpecial: true });
  if (tokens.length < count) throw new Error(`Expected ${count} tokens but found ${tokens.length}`);
  return tokens.slice(0, count);
}
