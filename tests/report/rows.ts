/**
 * Rows as the commands write them, from a seed.
 *
 * @module
 */
import type { EvaluationRow } from "../../bench/report/summary.ts";
import { type Results, results } from "../../bench/report/results.ts";
import { random } from "../random.ts";

export const METHODS = ["streaming_llm", "h2o", "snapkv", "pyramidkv", "chunkkv"];
export const KEEPS = [0.1, 0.2, 0.3];
export const LENGTHS = [1000, 2000, 4000];
export const DEPTHS = [0, 0.25, 0.5, 0.75, 1];

/** Better with the method's place in the list and with what is kept. */
function quality(method: string, keep: number): number {
  return method === "full" ? 0.95 : 0.3 + 0.1 * METHODS.indexOf(method) + keep;
}

function cases(): { method: string; keep: number }[] {
  const compressed = METHODS.flatMap((method) => KEEPS.map((keep) => ({ method, keep })));
  return [{ method: "full", keep: 1 }, ...compressed];
}

/** `needle`: 25 needles a length. */
export function needleResults(): Results<EvaluationRow> {
  const next = random(1);
  const rows = cases().flatMap(({ method, keep }) =>
    LENGTHS.flatMap((length) =>
      Array.from({ length: 25 }, (_, i): EvaluationRow => {
        const exact = next() < quality(method, keep) ? 1 : 0;
        const [kl, nll] = [
          method === "full" ? 0 : 1.2 * (1 - quality(method, keep)),
          0.5 - exact / 3,
        ];
        const depth = DEPTHS[i % 5]!;
        return {
          method,
          keep,
          id: `${length}-${i}`,
          task: "needle",
          length,
          depth,
          exact,
          nll,
          kl,
        };
      })
    )
  );
  const args = { lengths: LENGTHS, methods: METHODS, keeps: KEEPS, data: "my essays/", seed: 1 };
  return results("needle", "SmolLM2-135M-Instruct.Q4_1.gguf", args, rows);
}

/** `longbench`: several tasks. */
export function longbenchResults(): Results<EvaluationRow> {
  const next = random(2);
  const rows = ["hotpotqa", "gov_report", "trec"].flatMap((task) =>
    cases().flatMap(({ method, keep }) =>
      Array.from({ length: 12 }, (_, i): EvaluationRow => ({
        method,
        keep,
        id: `${task}-${i}`,
        task,
        score: Math.min(1, next() * quality(method, keep)),
        nll: 2 - quality(method, keep) + next() / 5,
        kl: method === "full" ? 0 : next() / 4,
      }))
    )
  );
  return results("longbench", "model.gguf", { tasks: ["hotpotqa", "gov_report", "trec"] }, rows);
}
