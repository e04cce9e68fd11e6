/**
 * Plots of an evaluation.
 *
 * @module
 */
import { mean } from "simple-statistics";
import type { TopLevelSpec } from "vega-lite";
import { type Estimate, type EvaluationRow, methodName, scoreOf, type Summary } from "./summary.ts";
import { COLORS, CONFIG, percent, type Plot, toSvg, WIDTH } from "./svg.ts";

/** Methods in the order in which they first occur; the full cache is a line, not one of them. */
export function methodsOf(summaries: readonly Summary[]): string[] {
  return [...new Set(summaries.map(({ method }) => method))].filter((name) => name !== "full");
}

/** What a plot against the fraction kept shows. */
export interface AgainstKept {
  title: string;
  /** The measure, named on the axis. */
  label: string;
  value: (summary: Summary) => Estimate | undefined;
  /** Lowest and highest value of the axis. @default {from the data, with 0} */
  domain?: readonly [number, number];
  /** Number format of the axis. @default {".2~f"} */
  format?: string;
}

/** A measure against the fraction kept, one line a method, with intervals; undefined: no values. */
export async function againstKept(
  summaries: readonly Summary[],
  methods: readonly string[],
  { title, label, value, domain, format = ".2~f" }: AgainstKept,
): Promise<Plot | undefined> {
  const points = summaries
    .filter(({ method }) => method !== "full")
    .flatMap((summary) => {
      const found = value(summary);
      if (found === undefined) return [];
      return [{ method: summary.method, keep: summary.keep, ...found }];
    });
  if (points.length === 0) return undefined;
  const full = summaries.find(({ method }) => method === "full");
  const reference = full && value(full);
  const description = `${label} against the fraction of tokens kept, by method` +
    (reference ? `; the dashed line is the full cache, ${reference.mean.toFixed(3)}` : "");
  const order = { domain: [...methods] };
  const byMethod = { field: "method", type: "nominal" as const, title: null };
  const shared = {
    x: {
      field: "keep",
      type: "ordinal" as const,
      title: "tokens kept",
      axis: { labelAngle: 0, labelExpr: "format(datum.value, '.2~%')" },
    },
    // Methods stand beside each other, or their intervals would hide each other.
    xOffset: { field: "method", type: "nominal" as const, scale: order },
    color: { ...byMethod, scale: { ...order, range: COLORS } },
  };
  const y = (field: string) => ({
    field,
    type: "quantitative" as const,
    title: label,
    axis: { format },
    scale: domain ? { domain: [...domain] } : { zero: true },
  });
  const spec: TopLevelSpec = {
    config: CONFIG,
    description,
    width: WIDTH,
    height: 220,
    data: { values: points },
    layer: [
      ...(reference
        ? [{
          data: { values: [{}] },
          mark: { type: "rule" as const, color: "currentColor", strokeDash: [5, 4] },
          encoding: { y: { datum: reference.mean } },
        }]
        : []),
      { mark: { type: "line", opacity: 0.5 }, encoding: { ...shared, y: y("mean") } },
      {
        mark: { type: "rule", strokeWidth: 1.5 },
        encoding: { ...shared, y: y("low"), y2: { field: "high" } },
        transform: [{ filter: "isValid(datum.low)" }],
      },
      {
        mark: { type: "point", filled: true, size: 75, opacity: 1 },
        encoding: { ...shared, y: y("mean"), shape: { ...byMethod, scale: order } },
      },
    ],
  };
  return { title, description, svg: await toSvg(spec) };
}

/** Needle heat maps: one for each method and fraction, the share found by length and depth. */
export async function heatMaps(rows: readonly EvaluationRow[]): Promise<Plot[]> {
  const needles = rows.filter((row) =>
    row.length !== undefined && row.depth !== undefined && scoreOf(row) !== undefined
  );
  const groups = Map.groupBy(needles, (row) => `${methodName(row)}, ${percent(row.keep)} kept`);
  return await Promise.all(
    [...groups].map(([title, group]) => heatMap(title.replace(/^full,.*/, "full cache"), group)),
  );
}

async function heatMap(title: string, rows: readonly EvaluationRow[]): Promise<Plot> {
  const cells = [...Map.groupBy(rows, ({ length, depth }) => `${length} ${depth}`).values()];
  const values = cells.map((cell) => ({
    length: cell[0]!.length,
    depth: cell[0]!.depth,
    found: mean(cell.map((row) => scoreOf(row)!)),
  }));
  const description = `${title}: needles found by context length and depth, ` +
    `${percent(mean(rows.map((row) => scoreOf(row)!)))} of ${rows.length} in all`;
  const spec: TopLevelSpec = {
    config: CONFIG,
    description,
    width: WIDTH - 20,
    height: { step: new Set(values.map(({ depth }) => depth)).size > 12 ? 14 : 26 },
    data: { values },
    encoding: {
      x: {
        field: "length",
        type: "ordinal",
        title: "tokens of context",
        axis: { labelAngle: 0, labelExpr: "format(datum.value, ',')", labelOverlap: true },
      },
      y: {
        field: "depth",
        type: "ordinal",
        title: "depth",
        axis: { labelExpr: "format(datum.value, '.0%')", labelOverlap: true },
      },
    },
    layer: [
      {
        mark: { type: "rect", stroke: "none" },
        encoding: {
          color: {
            field: "found",
            type: "quantitative",
            scale: { scheme: "viridis", domain: [0, 1] },
            // Every cell says its share.
            legend: null,
          },
        },
      },
      {
        mark: { type: "text", fontSize: 11 },
        encoding: {
          text: { field: "found", type: "quantitative", format: ".0%" },
          color: {
            condition: { test: "datum.found > 0.6", value: "#111" },
            value: "#fff",
          },
        },
      },
    ],
  };
  return { title, description, svg: await toSvg(spec) };
}

/** Bars of one measure, one a row of the results. */
export async function bars(
  values: readonly { name: string; value: number }[],
  title: string,
  label: string,
): Promise<Plot> {
  const description = `${label}: ` +
    values.map(({ name, value }) => `${name} ${value.toPrecision(3)}`).join(", ");
  const y = { field: "name", type: "nominal" as const, sort: null, title: null };
  const x = { field: "value", type: "quantitative" as const, title: label };
  const spec: TopLevelSpec = {
    config: CONFIG,
    description,
    width: WIDTH - 100,
    height: { step: 26 },
    data: { values: [...values] },
    encoding: { y, x },
    layer: [
      { mark: { type: "bar", color: COLORS[0]! } },
      {
        mark: { type: "text", align: "left", dx: 4, color: "currentColor" },
        encoding: { text: { field: "value", type: "quantitative", format: ".3~s" } },
      },
    ],
  };
  return { title, description, svg: await toSvg(spec) };
}

/** How alike neighbouring layers choose, layer by layer; undefined where rows do not say. */
export async function similarityPlot(rows: readonly EvaluationRow[]): Promise<Plot | undefined> {
  const there = rows.filter(({ similarity }) => similarity && similarity.length > 0);
  if (there.length === 0) return undefined;
  const groups = Map.groupBy(there, (row) => `${methodName(row)} ${percent(row.keep)}`);
  const values = [...groups].flatMap(([name, group]) =>
    group[0]!.similarity!.map((_, i) => ({
      name,
      // The first layer has none before it.
      layer: i + 1,
      similarity: mean(group.map(({ similarity }) => similarity![i]!)),
    }))
  );
  const description = "Jaccard similarity of what each layer and the one before it keep, by method";
  const spec: TopLevelSpec = {
    config: CONFIG,
    description,
    width: WIDTH,
    height: 220,
    data: { values },
    mark: { type: "line", point: true },
    encoding: {
      x: { field: "layer", type: "quantitative", title: "layer", axis: { tickMinStep: 1 } },
      y: {
        field: "similarity",
        type: "quantitative",
        title: "Jaccard similarity",
        scale: { domain: [0, 1] },
      },
      color: {
        field: "name",
        type: "nominal",
        title: null,
        scale: { domain: [...groups.keys()], range: COLORS },
      },
    },
  };
  return { title: "Similarity of neighbouring layers", description, svg: await toSvg(spec) };
}
