/**
 * One prompt, prefilled once; each method starts from the same restored cache.
 *
 * @module
 */
import type { LlamaContext, LlamaModel } from "chunkkv/llama-cpp";
import {
  type CaseSpeed,
  decodeRates,
  greedy,
  meanDivergence,
  teacherForced,
  TIMED_TOKENS,
} from "./measure.ts";

/** One line of the demo: snake_case, as in the JSON. */
export interface DemoRow extends CaseSpeed {
  /** How tokens were chosen. */
  method: string;
  /** Fraction of the prompt's tokens kept. */
  keep: number;
  /** Mean KL(full || this) in nats over the full cache's own greedy continuation. */
  kl: number | null;
  /** Tokens that `kl` is the mean over. */
  kl_tokens: number;
  answer: string;
}

/** What to compare. */
export interface CompareOptions {
  cases: readonly { method: string; keep: number }[];
  /** Most tokens of an answer. */
  maxTokens: number;
  threads?: number;
  /** Stops it. */
  signal?: AbortSignal;
  /** Tokens read so far. */
  onRead?: (done: number) => void;
  /** The prompt is read, measuring begins. */
  onWork?: () => void;
}

/** Tokens of the full cache's continuation that distributions are compared over. */
const KL_TOKENS = 64;

// The observation window: these tokens are read again for each method, so that it compresses right
// after a prompt, as in use. All that comes before them is restored.
const WINDOW = 32;

/** Runs the full cache and every case; rows in that order. */
export async function compareMethods(
  model: LlamaModel,
  prompt: Int32Array<ArrayBuffer>,
  options: CompareOptions,
): Promise<DemoRow[]> {
  const settings = {
    contextSize: prompt.length + Math.max(options.maxTokens, KL_TOKENS + 1) + TIMED_TOKENS,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  };
  using context = model.createContext(settings);
  const head = prompt.subarray(0, Math.max(1, prompt.length - WINDOW));
  const tail = prompt.subarray(head.length);
  const { milliseconds } = await context.prefill(head, {
    onProgress: ({ done }) => options.onRead?.(done),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  options.onWork?.();
  const state = context.saveState();
  const reread = async () => {
    context.restoreState(state, { tokens: head });
    return await context.prefill(tail);
  };
  const end = await context.prefill(tail);
  const shared = { prefill_s: (milliseconds + end.milliseconds) / 1000 };

  const rows: DemoRow[] = [];
  const size = kvSize(context);
  const full = await greedy(context, options.maxTokens);
  // The answer may be short; what is compared goes on past its end.
  const rest = await greedy(context, Math.max(0, KL_TOKENS + 1 - full.tokens.length), {
    ignoreEnd: true,
  });
  const continuation = [...full.tokens, ...rest.tokens].slice(0, KL_TOKENS + 1);
  const [fullTps] = await decodeRates([context]);
  await reread();
  const reference = await teacherForced(context, continuation);
  rows.push({
    method: "full",
    keep: 1,
    ...size,
    ...shared,
    compress_ms: null,
    select_ms: null,
    decode_tps: fullTps!,
    native_tps: null,
    kl: meanDivergence(reference, reference),
    kl_tokens: reference.length,
    answer: full.text.trim(),
  });

  const lowest = Math.min(...options.cases.map(({ keep }) => keep));
  for (const { method, keep } of options.cases) {
    options.signal?.throwIfAborted();
    await reread();
    context.compress({ method, keep });
    const kl = meanDivergence(reference, await teacherForced(context, continuation));

    await reread();
    const report = context.compress({ method, keep });
    const size = kvSize(context);
    const answer = (await greedy(context, options.maxTokens)).text.trim();
    using native = method === "chunkkv" && keep === lowest
      ? await sameLength(model, context, prompt, settings)
      : null;
    const [tps, nativeTps] = await decodeRates(native ? [context, native] : [context]);
    rows.push({
      method,
      keep,
      ...size,
      ...shared,
      compress_ms: report.selectMilliseconds + report.compactMilliseconds,
      select_ms: report.selectMilliseconds,
      decode_tps: tps!,
      native_tps: nativeTps ?? null,
      kl,
      kl_tokens: reference.length,
      answer,
    });
  }
  return rows;
}

function kvSize(context: LlamaContext): Pick<DemoRow, "kept_tokens" | "kv_mib"> {
  return { kept_tokens: context.cellCount(), kv_mib: context.kvBytes() / 2 ** 20 };
}

/** A context that holds as many tokens as `compressed` does, none of them dropped. */
async function sameLength(
  model: LlamaModel,
  compressed: LlamaContext,
  prompt: Int32Array<ArrayBuffer>,
  settings: { contextSize: number; threads?: number },
): Promise<LlamaContext> {
  const native = model.createContext(settings);
  try {
    await native.prefill(prompt.subarray(0, compressed.cellCount()));
    return native;
  } catch (error) {
    native[Symbol.dispose]();
    throw error;
  }
}
