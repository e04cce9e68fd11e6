/**
 * Needle in a haystack: one random fact inside a long text of an exact length in tokens.
 *
 * @module
 */
import { join } from "node:path";
import { randomIndex, seededRandom } from "../random.ts";
import { UsageError } from "../usage.ts";
import { chosenTasks } from "./draw.ts";
import type { Example, LoadOptions } from "./example.ts";
import { Haystack } from "./haystack.ts";
import { listFiles, sample } from "./rows.ts";

/** Context lengths where none are asked for. */
export const DEFAULT_LENGTHS: readonly number[] = [1000, 2000, 4000];
/** Depths where none are asked for. */
export const DEFAULT_DEPTHS: readonly number[] = [0, 0.25, 0.5, 0.75, 1];
/** Needles of each length where no limit is given: five at each of five depths. */
export const DEFAULT_NEEDLES = 25;

/** Digits of a number where no other count is asked for, as in RULER (arXiv 2404.06654). */
export const DEFAULT_DIGITS = 7;

// Of an answer beside its digits, of which each may be a token.
const MORE_TOKENS = 9;
// deno-fmt-ignore
const CITIES = [
  "Accra", "Athens", "Bergen", "Bogota", "Cairo", "Cardiff", "Chennai", "Dakar", "Darwin", "Denver",
  "Dublin", "Geneva", "Ghent", "Hanoi", "Havana", "Helsinki", "Jakarta", "Kigali", "Krakow", "Lagos",
  "Lima", "Lisbon", "Lyon", "Malmo", "Manila", "Montreal", "Mumbai", "Nairobi", "Osaka", "Oslo",
  "Porto", "Quito", "Riga", "Seville", "Sofia", "Tallinn", "Tbilisi", "Tunis", "Turin", "Vienna",
];

/**
 * For every length `limit` needles (25 without one), spread evenly over the depths.
 *
 * @param dir A folder with `.txt` files, repeated where they are shorter than a length; undefined:
 * the story that ships with the project.
 */
export async function load(dir: string | undefined, options: LoadOptions): Promise<Example[]> {
  chosenTasks(["needle"], options.tasks);
  const { lengths = DEFAULT_LENGTHS, depths = DEFAULT_DEPTHS, limit = DEFAULT_NEEDLES } = options;
  const { digits = DEFAULT_DIGITS } = options;
  if (lengths.length === 0 || depths.length === 0) {
    throw new UsageError("Expected at least one length and one depth but found none");
  }
  const wrong = depths.find((depth) => !(depth >= 0 && depth <= 1));
  if (wrong !== undefined) {
    throw new UsageError(`Expected depths from 0 to 1 but found ${wrong}`);
  }
  const haystack = new Haystack(await readTexts(dir), options.countTokens ?? estimateTokens);
  return lengths.flatMap((length) =>
    Array.from({ length: limit }, (_, i) => {
      const round = Math.floor(i / depths.length);
      return hide(
        haystack,
        { length, depth: depths[i % depths.length]!, index: i, round, digits },
        options.seed,
      );
    })
  );
}

interface Place {
  length: number;
  depth: number;
  index: number;
  /** Those of one round, a needle at each depth, are hidden in the same text: its start is read once. */
  round: number;
  digits: number;
}

function hide(haystack: Haystack, place: Place, seed: number): Example {
  const { length, depth, index, round, digits } = place;
  const random = seededRandom(seed, "needle", length, depth, index);
  const city = CITIES[randomIndex(random, CITIES.length)]!;
  const number = String(10 ** (digits - 1) + randomIndex(random, 9 * 10 ** (digits - 1)));
  const needle = `The special magic number for ${city} is: ${number}.`;
  return {
    id: `${length}-${depth}-${index}`,
    task: "needle",
    instructionBefore: "A special magic number is hidden in the following text. Remember it: " +
      "you will be asked for it afterwards.\n\n",
    context: haystack.fill(length, needle, depth, seededRandom(seed, "haystack", length, round)),
    instructionAfter: "\n\n",
    question: `What is the special magic number for ${city} in the text above?`,
    answerStart: `The special magic number for ${city} is:`,
    chat: true,
    answers: [number],
    reference: ` ${number}.`,
    maxTokens: digits + MORE_TOKENS,
    metric: "needle",
    length,
    depth,
  };
}

async function readTexts(dir: string | undefined): Promise<string> {
  const folder = dir ?? sample();
  const files = await listFiles(folder, [".txt"]);
  const texts = await Promise.all(files.map((name) => Deno.readTextFile(join(folder, name))));
  const text = texts.map((text) => text.trim()).filter((text) => text !== "").join("\n\n");
  if (text === "") {
    throw new UsageError(
      `Expected --data to name a folder with .txt files but found none with text in "${folder}"`,
    );
  }
  return text;
}

/** English has about four characters a token. */
function estimateTokens(text: string): number {
  return Math.ceil(text.length / 4);
}
