/**
 * Evaluating commands, run as small as they can be.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { ExampleRow } from "../../bench/evaluation/rows.ts";
import type { SummaryRow } from "../../bench/evaluation/summary.ts";
import type { Results } from "../../bench/report/results.ts";
import { chunkkv } from "./run.ts";

/** What a command writes as JSON. */
export type Evaluated = Results<ExampleRow> & {
  summary: SummaryRow[];
  left_out: Record<string, number>;
};

// As small as it can be: what is tested is the way, not the model.
export const TINY = ["--threads", "1", "--kl-tokens", "6", "--nll-tokens", "4"];
export const NEEDLE = ["needle", "--lengths", "120", "--depths", "0.5", ...TINY];

/** Runs with the path of a folder of its own. */
export async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Runs a command that must succeed; its JSON. */
export async function evaluated(
  args: string[],
  folder: string,
): Promise<Evaluated & { stdout: string }> {
  const json = `${folder}/rows.json`;
  const { code, stdout, stderr } = await chunkkv([...args, "--json", json]);
  assertEquals(code, 0, stderr);
  return { ...JSON.parse(await Deno.readTextFile(json)), stdout };
}
