/**
 * Prompts longer than the cache: read in pieces, with compactions between them.
 *
 * @module
 */
import { methodByName } from "../../ffi/methods.ts";
import { check, ChunkKvError } from "../../ffi/status.ts";
import { throwIfAborted } from "./abort.ts";
import { compressAsync, type CompressOptions, packCompression } from "./compression.ts";
import type { ContextHandle } from "./context_handle.ts";
import { checkInteger, checkSequence } from "./integers.ts";
import { bridge } from "./native.ts";
import { prefill, type PrefillOptions, type PrefillReport } from "./prefill.ts";

/**
 * How a prompt that is longer than the cache is read: what each compaction keeps, and when one comes.
 * The method and its settings are those of `compress`; its observation window are the newest tokens
 * that have been read when the compaction comes.
 */
export interface StreamingOptions extends Omit<CompressOptions, "keep" | "sequence"> {
  /** Tokens that each compaction keeps. @default {half of the context's cells} */
  budget?: number;
  /**
   * Cells of the context that the prompt leaves free, for what is generated after it.
   *
   * @default {a sixteenth of the context's cells}
   */
  reserve?: number;
}

// The largest observation window: so much is read between two compactions, whose window's queries
// are then all there.
const LEAST_ROOM = 64;

interface Plan {
  /** Cells that may be in use, all sequences together. */
  readonly limit: number;
  readonly compression: CompressOptions;
}

/**
 * Reads a prompt of any length. What fits is one piece, as without streaming. Otherwise each piece
 * fills the cache, and a compaction to the budget makes room for the next.
 *
 * @param context The context.
 * @param tokens The prompt.
 * @param options Settings, `streaming` among them.
 * @param onCompaction Called before the first compaction: from now on nothing brings back what the
 * sequence was.
 * @returns What it did.
 * @throws {ChunkKvError} `invalid_argument`, `cancelled`, or why the engine or a compaction failed.
 * The piece that was going in leaves no trace, the pieces before it stay in the sequence, compacted.
 */
export async function stream(
  context: ContextHandle,
  tokens: Int32Array<ArrayBuffer>,
  options: PrefillOptions,
  onCompaction: () => void,
): Promise<PrefillReport> {
  const { sequence = 0, signal, streaming, onProgress, ...rest } = options;
  const total = tokens.length;
  const plan = makePlan(context, sequence, typeof streaming === "object" ? streaming : {});
  const start = performance.now();
  const before = length(context, sequence);
  let [done, reported, compactions, compactionMilliseconds] = [0, -1, 0, 0];
  try {
    do {
      throwIfAborted(signal);
      let room = plan.limit - usedCells(context);
      if (room < 1 && total > 0) {
        if (compactions === 0) onCompaction();
        // Not stopped by the signal: a compaction that is cut off while it decodes loses tokens.
        const report = await compressAsync(context, plan.compression);
        compactions++;
        compactionMilliseconds += report.milliseconds;
        throwIfAborted(signal);
        room = plan.limit - usedCells(context);
      }
      const piece = tokens.subarray(done, done + Math.max(room, 0));
      const offset = done;
      await prefill(context, piece, context.info.batch_size, {
        ...rest,
        sequence,
        ...(signal && { signal }),
        // The end of a piece is the start of the next: told once.
        onProgress: (progress) => {
          if (offset + progress.done === reported) return;
          reported = offset + progress.done;
          onProgress?.({ done: reported, total });
        },
      });
      done += piece.length;
      // Between pieces nothing keeps other calls out.
      if (length(context, sequence) !== before + done) throw changed(sequence);
    } while (done < total);
  } catch (error) {
    throw done > 0 ? withState(error, done, total) : error;
  }
  return {
    tokens: total,
    milliseconds: performance.now() - start,
    compactions,
    compactionMilliseconds,
  };
}

function makePlan(context: ContextHandle, sequence: number, options: StreamingOptions): Plan {
  const cells = context.info.context_size;
  const { reserve = Math.floor(cells / 16), budget = Math.floor(cells / 2), ...rest } = options;
  checkSequence(sequence);
  checkInteger("reserve", reserve, 0);
  checkInteger("budget", budget, 1);
  const { method = "chunkkv" } = rest;
  const { name, ...settings } = typeof method === "string" ? methodByName(method, rest) : method;
  check(name !== "full", "a method of streaming that drops tokens", name);
  check(name !== "pyramidkv", "a method of streaming whose layers keep equally many tokens", name);
  const window = "window" in settings ? settings.window : 1;
  check(budget >= window, `a budget of at least ${window} tokens, the window,`, budget);
  const others = usedCells(context) - cellCount(context, sequence);
  const limit = cells - reserve;
  const most = limit - others - LEAST_ROOM;
  check(
    budget <= most,
    `a budget of at most ${most} tokens, which leaves room to read on (${cells} cells, ${reserve} in ` +
      `reserve, ${others} of other sequences, ${LEAST_ROOM} for a piece),`,
    budget,
  );
  const compression = { ...rest, budget, sequence };
  packCompression(compression); // refuses what is wrong before anything is read
  return { limit, compression };
}

// What sequences share counts for each of them: rather too much than too little.
function usedCells(context: ContextHandle): number {
  let cells = 0;
  for (let s = 0; s < context.info.num_sequences; s++) cells += cellCount(context, s);
  return cells;
}

function cellCount(context: ContextHandle, sequence: number): number {
  return context.count(bridge().ckv_llama_sequence_cells(context.idle, sequence));
}

function length(context: ContextHandle, sequence: number): number {
  return context.count(bridge().ckv_llama_sequence_length(context.idle, sequence));
}

function changed(sequence: number): ChunkKvError {
  return new ChunkKvError(
    "busy",
    `Expected sequence ${sequence} to be this prompt's until it is in but found it changed meanwhile`,
  );
}

function withState(error: unknown, done: number, total: number): unknown {
  if (!(error instanceof ChunkKvError) || error.code === "disposed") return error;
  return new ChunkKvError(
    error.code,
    `${error.message}; the prompt's first ${done} of ${total} tokens stay in the sequence`,
    { cause: error.cause },
  );
}
