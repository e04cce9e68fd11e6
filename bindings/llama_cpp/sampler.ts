/**
 * How the next token is picked.
 *
 * @module
 */
import { check } from "../../ffi/status.ts";
import { checkInteger } from "./integers.ts";
import { bridge, Handle } from "./native.ts";
import { packStruct, SAMPLER_PARAMS } from "./structs.ts";

/** Settings of sampling. */
export interface SamplingOptions {
  /** 0 always picks the most likely token; higher is more varied. @default {0.8} */
  temperature?: number;
  /** Only the so many most likely tokens; 0: all. @default {40} */
  topK?: number;
  /** Only the most likely tokens that together have this probability; 1: all. @default {0.95} */
  topP?: number;
  /** Only tokens with at least this fraction of the most likely one's probability; 0: all. @default {0.05} */
  minP?: number;
  /** What divides the logits of tokens that came lately; 1: nothing. @default {1} */
  repeatPenalty?: number;
  /** Tokens that count as lately. @default {64} */
  repeatLast?: number;
  /** Goes on where the model would end, as when speed is measured. @default {false} */
  ignoreEnd?: boolean;
  /** Start of the random numbers, 32 bits; the same gives the same text. @default {a random one} */
  seed?: number;
}

/**
 * Makes a sampler.
 *
 * @param model A loaded model.
 * @param options Its settings.
 * @returns The sampler, to be disposed of.
 * @throws {ChunkKvError} `invalid_argument` if a setting is out of its range.
 */
export function makeSampler(model: Handle, options: SamplingOptions): Handle {
  const {
    temperature = 0.8,
    topK = 40,
    topP = 0.95,
    minP = 0.05,
    repeatPenalty = 1,
    repeatLast = 64,
    ignoreEnd = false,
    seed = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0,
  } = options;
  checkNumber("temperature", temperature, 0, Infinity);
  checkInteger("topK", topK, 0);
  check(topP > 0 && topP <= 1, "topP to be above 0 and at most 1", topP);
  checkNumber("minP", minP, 0, 1);
  check(
    Number.isFinite(repeatPenalty) && repeatPenalty > 0,
    "repeatPenalty to be a finite number above 0",
    repeatPenalty,
  );
  checkInteger("repeatLast", repeatLast, 0);
  checkInteger("seed", seed, 0, 2 ** 32 - 1);
  const params = packStruct(SAMPLER_PARAMS, {
    temperature,
    top_k: topK,
    top_p: topP,
    min_p: minP,
    repeat_penalty: repeatPenalty,
    repeat_last: repeatLast,
    ignore_end: Number(ignoreEnd),
    seed,
  });
  return new Handle(
    "a sampler",
    bridge().ckv_llama_sampler_new(model.pointer, params),
    freeSampler,
  );
}

// Outside of makeSampler(): it must not keep alive what it frees.
function freeSampler(pointer: Deno.PointerObject): void {
  bridge().ckv_llama_sampler_free(pointer);
}

function checkNumber(name: string, value: number, least: number, most: number): void {
  const range = most === Infinity ? `of at least ${least}` : `from ${least} to ${most}`;
  check(
    value >= least && value <= most && Number.isFinite(value),
    `${name} to be a finite number ${range}`,
    value,
  );
}
