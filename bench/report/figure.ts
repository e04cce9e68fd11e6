/**
 * The README's figure, from a demo's JSON:
 * `deno run --allow-read --allow-write --allow-env bench/report/figure.ts demo.json docs/demo.svg`.
 *
 * @module
 */
import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import type { DemoRow } from "../engine/compare.ts";
import type { Results } from "./results.ts";

/** Two bars for each row of the demo: memory of the cache and speed of decoding. */
export function demoSpec(results: Results<DemoRow>): TopLevelSpec {
  const names = results.rows.map((row) => `${row.method} ${Math.round(row.keep * 100)}%`);
  const values = results.rows.map((row, i) => ({ ...row, name: names[i] }));
  const bars = (field: string, title: string) => ({
    width: 300,
    height: { step: 26 },
    layer: [
      { mark: { type: "bar" as const, color: "#4c78a8" } },
      {
        mark: { type: "text" as const, align: "left" as const, dx: 4 },
        encoding: { text: { field, type: "quantitative" as const, format: ".1f" } },
      },
    ],
    encoding: {
      y: { field: "name", type: "nominal" as const, sort: names, title: null },
      x: { field, type: "quantitative" as const, title },
    },
  });
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    background: "white",
    padding: 12,
    title: `${results.model}: ${results.rows[0]?.kept_tokens} tokens of prompt, ` +
      `${results.machine.cores} cores`,
    data: { values },
    hconcat: [bars("kv_mib", "KV cache, MiB"), bars("decode_tps", "decoding, tokens a second")],
  };
}

if (import.meta.main) {
  const [from, to] = Deno.args;
  if (!from || !to) throw new Error("Expected the path of a demo's JSON and of the SVG to write");
  const results: Results<DemoRow> = JSON.parse(await Deno.readTextFile(from));
  const { spec } = compile(demoSpec(results));
  const svg = await new View(parse(spec), { renderer: "none" }).toSVG();
  await Deno.writeTextFile(to, svg + "\n");
}
