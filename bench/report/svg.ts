/**
 * Plots as SVG text, drawn by Vega-Lite; colours suit light and dark pages.
 *
 * @module
 */
import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";

/** A plot and the words for those who do not see it. */
export interface Plot {
  title: string;
  /** What it shows, in one sentence. */
  description: string;
  svg: string;
}

// After Okabe and Ito, for colour-blind readers; each stands out on white and on black.
/** Of methods. */
export const COLORS = ["#2f86c9", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8a8a00"];
/** Of a plot without its axis, in pixels. */
export const WIDTH = 300;
/** What all plots share. */
export const CONFIG: NonNullable<TopLevelSpec["config"]> = {
  background: "transparent",
  font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: {
    domainColor: "currentColor",
    tickColor: "currentColor",
    labelColor: "currentColor",
    titleColor: "currentColor",
    gridColor: "currentColor",
    gridOpacity: 0.15,
    labelFontSize: 12,
    // Whole names, however long.
    labelLimit: 0,
    titleFontSize: 12,
    titleFontWeight: "normal",
  },
  legend: {
    orient: "bottom",
    columns: 3,
    labelColor: "currentColor",
    titleColor: "currentColor",
    labelFontSize: 12,
    labelLimit: 0,
    symbolSize: 80,
    symbolOpacity: 1,
  },
};

/** A fraction for people. */
export function percent(fraction: number): string {
  return `${Number((100 * fraction).toFixed(1))}%`;
}

/** Draws a plot. */
export async function toSvg(spec: TopLevelSpec): Promise<string> {
  const view = new View(parse(compile(spec).spec), { renderer: "none" });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}
