/**
 * `kernels`: score, select and compact against what this machine can do at most.
 *
 * @module
 */
import { totalmem } from "node:os";
import type { Command } from "commander";
import {
  ChunkKvError,
  type ChunkKvErrorCode,
  Compressor,
  type Dtype,
  DTYPES,
  type Isa,
  ISAS,
  MAX_WINDOW,
  rowBytes,
} from "chunkkv";
import { USUAL } from "../kernels/device_measure.ts";
import { deviceReport, measureOnDevice } from "../kernels/device_report.ts";
import { higher, type Limits, measureLimits } from "../kernels/limits.ts";
import { type KernelRow, rowsOf, type Times, timeStages } from "../kernels/measure.ts";
import { cacheBytes, type Case, LAYOUTS, SHAPES } from "../kernels/workload.ts";
import { Progress } from "../report/progress.ts";
import { results, writeJson } from "../report/results.ts";
import { decimals, formatTable } from "../report/table.ts";
import { integer, UsageError } from "../usage.ts";

/** Lengths and batches of `--all`. */
const ALL_LENGTHS = [1024, 4096, 8192, 16384, 32768, 65536, 131072];
const ALL_BATCHES = [1, 8];

interface KernelsOptions {
  device: "cpu" | "cuda";
  shape: keyof typeof SHAPES;
  n: number[];
  heads?: number;
  kvHeads?: number;
  headDim?: number;
  dtype: Dtype;
  layout: typeof LAYOUTS[number];
  keep: number;
  window: number;
  chunkSize: number;
  batch: number;
  threads: number;
  isa: Isa;
  all?: true;
  seconds: number;
  json?: string;
}

/** Adds the command. */
export function addKernels(program: Command): void {
  program.command("kernels")
    .description("score, select and compact against the machine's own limits")
    .option(
      "--device <NAME>",
      "cpu or cuda: score, select, compact on a GPU",
      oneOf("--device", ["cpu", "cuda"]),
      "cpu",
    )
    .option(
      "--shape <NAME>",
      `one layer of a model: ${Object.keys(SHAPES).join(", ")}`,
      oneOf("--shape", Object.keys(SHAPES)),
      "llama-3-8b",
    )
    .option("--n <N,...>", "tokens of a sequence, one or several", lengths, [4096])
    .option("--heads <N>", "query heads (default: the shape's)", integer("--heads", 1, 1024))
    .option("--kv-heads <N>", "kv heads (default: the shape's)", integer("--kv-heads", 1, 1024))
    .option("--head-dim <N>", "elements of a row", integer("--head-dim", 1, 1024))
    .option(
      "--dtype <NAME>",
      "of keys and values (default: f16; bf16 on cuda)",
      oneOf("--dtype", Object.keys(DTYPES)),
    )
    .option("--layout <NAME>", LAYOUTS.join(", "), oneOf("--layout", LAYOUTS), "contiguous")
    .option("--keep <X>", "fraction kept", fraction, 0.1)
    .option("--window <N>", "observation window", integer("--window", 1, MAX_WINDOW), 32)
    .option("--chunk-size <N>", "tokens of a chunk", integer("--chunk-size", 1), 10)
    .option("--batch <N>", "sequences", integer("--batch", 1, 1024), 1)
    .option("--threads <N>", "0: one per core; of the CPU alone", integer("--threads", 0, 1024), 0)
    .option(
      "--isa <NAME>",
      "instruction set; of the CPU alone",
      oneOf("--isa", Object.keys(ISAS)),
      "best",
    )
    .option("--all", "every shape, 1k to 128k tokens, batch 1 and 8, as memory allows")
    .option("--seconds <N>", "about how long a stage is repeated", integer("--seconds", 0, 60), 1)
    .option("--json <FILE>", "write the rows as JSON too")
    .action(kernels);
}

type Given = Omit<KernelsOptions, "dtype"> & { dtype?: Dtype };

async function kernels(given: Given, command: Command): Promise<void> {
  const dtype = given.dtype ?? (given.device === "cuda" ? "bf16" : "f16");
  const options = { ...given, dtype };
  if (options.device === "cuda") return await kernelsOnDevice(options, command);
  const { threads, isa } = options;
  using compressor = asUsage("unsupported", () => new Compressor({ threads, isa }));
  const setting = { threads: compressor.threads, isa: compressor.isa };
  const { cases, left } = chooseCases(options);

  const before = measureLimits(setting.threads, setting.isa);
  const timed: { what: Case; times: Times }[] = [];
  {
    using progress = new Progress("measuring", cases.length, "cases");
    for (const what of cases) {
      timed.push({ what, times: timeStages(compressor, what, options.seconds) });
      progress.update(timed.length);
    }
  }
  // The machine may have been held up by others the first time.
  const limits = higher(before, measureLimits(setting.threads, setting.isa));

  const rows = timed.flatMap(({ what, times }) => rowsOf(what, times, limits, setting));
  console.log(formatTable(rows, COLUMNS));
  console.log(legend(limits, setting, options));
  for (const { shape, n, batch } of left) {
    console.log(`left out, more than a quarter of the memory: ${shape}, n ${n}, batch ${batch}`);
  }
  if (options.json) {
    const outcome = { ...results("kernels", null, { ...options }, rows), limits };
    await writeJson(options.json, outcome);
  }
}

/** What the library refuses for this reason is bad usage. */
function asUsage<T>(code: ChunkKvErrorCode, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof ChunkKvError) || error.code !== code) throw error;
    throw new UsageError(error.message, { cause: error });
  }
}

async function kernelsOnDevice(options: KernelsOptions, command: Command): Promise<void> {
  for (const name of ["threads", "isa"] as const) {
    if (command.getOptionValueSource(name) === "cli") {
      throw new UsageError(
        `Expected --${name} with --device cpu but found it with cuda, where it means nothing`,
      );
    }
  }
  const { threads: _threads, isa: _isa, ...args } = options;
  const { cases } = chooseCases(options);
  const patience = { ...USUAL, stage: options.seconds * 1000 };
  const outcome = measureOnDevice(cases, patience, options.all === true);
  console.log(deviceReport(outcome, options));
  if (options.json) {
    const { device, limits, rows } = outcome;
    const written = { ...results("kernels", null, args, rows), device, limits };
    await writeJson(options.json, written);
  }
}

/** What is measured, and what is left out because it would fill the memory. */
function chooseCases(options: KernelsOptions): { cases: Case[]; left: Case[] } {
  const names = options.all ? Object.keys(SHAPES) as (keyof typeof SHAPES)[] : [options.shape];
  const cases = names.flatMap((name) =>
    (options.all ? ALL_BATCHES : [options.batch]).flatMap((batch) =>
      (options.all ? ALL_LENGTHS : options.n).map((n) => toCase(options, name, n, batch))
    )
  );
  // Two layers at least take turns, each of keys and values.
  const fits = (what: Case) =>
    options.all !== true || options.device === "cuda" || 4 * cacheBytes(what) <= totalmem() / 4;
  return { cases: cases.filter(fits), left: cases.filter((what) => !fits(what)) };
}

function toCase(
  options: KernelsOptions,
  name: keyof typeof SHAPES,
  n: number,
  batch: number,
): Case {
  const own: Partial<KernelsOptions> = options.all ? {} : options;
  const { heads = SHAPES[name].heads, kvHeads = SHAPES[name].kvHeads } = own;
  const { headDim = SHAPES[name].headDim } = own;
  if (heads % kvHeads !== 0) {
    throw new UsageError(
      `Expected --heads to be a multiple of the ${kvHeads} kv heads but found ${heads}`,
    );
  }
  const { dtype, layout, keep, window, chunkSize } = options;
  if (layout === "paged" && n % 16 !== 0) {
    throw new UsageError(`Expected --n to be whole pages of 16 tokens but found ${n}`);
  }
  const row = asUsage("invalid_argument", () => rowBytes(dtype, headDim));
  const bytes = 2 * row * kvHeads * n * batch;
  if (!options.all && options.device === "cpu" && bytes > totalmem()) {
    throw new UsageError(
      `Expected --n and --batch whose keys and values fit in ${gigabytes(totalmem())} of memory ` +
        `but found ${n} and ${batch}, which take ${gigabytes(bytes)}`,
    );
  }
  const same = (["heads", "kvHeads", "headDim"] as const).every((key) =>
    own[key] === undefined || own[key] === SHAPES[name][key]
  );
  const shape = same ? name : `${heads}/${kvHeads}/${headDim}`;
  return {
    ...{ shape, heads, kvHeads, headDim, n, batch },
    ...{ dtype, layout, keep, window, chunkSize },
  };
}

function gigabytes(bytes: number): string {
  return `${decimals(bytes / 1e9, 1)} GB`;
}

function lengths(text: string): number[] {
  return text.split(",").map(integer("--n", 1));
}

function oneOf(option: string, names: readonly string[]): (text: string) => string {
  return (text) => {
    if (names.includes(text)) return text;
    throw new UsageError(`Expected ${option} to be one of ${names.join(", ")} but found "${text}"`);
  };
}

function fraction(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value > 0 && value <= 1) return value;
  throw new UsageError(`Expected --keep to be above 0 and at most 1 but found "${text}"`);
}

const RIGHT = { align: "right" as const };
const COLUMNS = [
  { heading: "shape", text: (row: KernelRow) => row.shape },
  { heading: "n", text: (row: KernelRow) => `${row.n}`, ...RIGHT },
  { heading: "batch", text: (row: KernelRow) => `${row.batch}`, ...RIGHT },
  { heading: "dtype", text: (row: KernelRow) => row.dtype },
  { heading: "stage", text: (row: KernelRow) => row.stage },
  { heading: "ms", text: (row: KernelRow) => decimals(row.ms, 3), ...RIGHT },
  { heading: "MB", text: (row: KernelRow) => decimals(row.bytes / 1e6, 2), ...RIGHT },
  { heading: "GFLOP", text: (row: KernelRow) => decimals(row.gflop, 3), ...RIGHT },
  { heading: "GB/s", text: (row: KernelRow) => decimals(row.gb_s, 2), ...RIGHT },
  { heading: "GFLOP/s", text: (row: KernelRow) => decimals(row.gflop_s, 1), ...RIGHT },
  { heading: "limit ms", text: (row: KernelRow) => decimals(row.limit_ms, 3), ...RIGHT },
  { heading: "of limit", text: (row: KernelRow) => decimals(row.of_limit, 2), ...RIGHT },
  { heading: "of runs", text: (row: KernelRow) => decimals(row.of_runs, 2), ...RIGHT },
];

function legend(
  limits: Limits,
  { threads, isa }: { threads: number; isa: string },
  { layout, keep, window, chunkSize }: KernelsOptions,
): string {
  const dot = limits.dot_gflop_s > 0 ? `, bf16 dot ${decimals(limits.dot_gflop_s, 1)} GFLOP/s` : "";
  return `
${isa}, ${threads} threads, ${layout}, keep ${keep}, window ${window}, chunks of ${chunkSize}
limits here with ${threads} threads, best of two times: memory read ${
    decimals(limits.read_gb_s, 1)
  } GB/s, copy ${decimals(limits.copy_gb_s, 1)} GB/s (read + written), FMA ${
    decimals(limits.fma_gflop_s, 1)
  } GFLOP/s${dot}
of limit = limit ms / ms; ms is the shortest run, on layers that take turns so that rows come from memory
score: QK^T counted once at the FMA (bf16: dot-product) peak, or the keys read once, the longer
select: the token scores read once
compact: kept rows of keys and values, in place, each byte read once and written once, at the copy bandwidth
of runs: the plainest copy of the very same rows, their places known before, takes the limit's place
sum: the three after each other`.trim();
}
