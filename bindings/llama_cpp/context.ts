/**
 * A context: a model's KV cache with the sequences in it.
 *
 * @module
 */
import { check } from "../../ffi/status.ts";
import { type AccumulatedAttention, restoreAttention, saveAttention } from "./attention.ts";
import {
  compressAsync,
  type CompressionReport,
  type CompressOptions,
  type LayerIndices,
  packCompression,
  packIndices,
  readReport,
} from "./compression.ts";
import { ContextHandle } from "./context_handle.ts";
import type { LlamaContextOptions } from "./context_options.ts";
import { generate, type GenerateOptions, type GenerateResult } from "./generate.ts";
import { type GeneratedText, generateEach, type GenerateEachOptions } from "./generate_each.ts";
import { checkInteger, checkSequence, MAX_INT32 } from "./integers.ts";
import type { LlamaModel } from "./model.ts";
import { bridge, type Handle } from "./native.ts";
import { prefill, type PrefillOptions, type PrefillReport } from "./prefill.ts";
import { type PromptInput, PromptReader } from "./prompt.ts";
import { score, type ScoreOptions } from "./score.ts";
import { LlamaSnapshot, SnapshotHandle } from "./snapshot.ts";
import { stream } from "./streaming.ts";
import { packStruct, REPORT } from "./structs.ts";
import { checkTokens } from "./tokenizer.ts";

/**
 * The KV cache of a model, with one or more sequences in it. Made by `LlamaModel.createContext`.
 *
 * One call at a time: a second one meanwhile throws `busy`. Methods take the number of a sequence,
 * by default 0.
 */
export class LlamaContext implements Disposable {
  readonly #model: LlamaModel;
  readonly #modelHandle: Handle;
  readonly #handle: ContextHandle;
  readonly #prompts: PromptReader;
  /** Tokens that the cache has room for, all sequences together. */
  readonly contextSize: number;
  /** Most tokens that go to the engine at once. */
  readonly batchSize: number;
  /** Sequences that can be in the cache at once. */
  readonly sequences: number;
  /** Threads that compute. */
  readonly threads: number;

  /** Internal: `LlamaModel.createContext` makes contexts. */
  constructor(model: LlamaModel, modelHandle: Handle, options: LlamaContextOptions) {
    this.#model = model;
    this.#modelHandle = modelHandle;
    this.#prompts = new PromptReader(model);
    this.#handle = new ContextHandle(modelHandle, options);
    ({
      context_size: this.contextSize,
      batch_size: this.batchSize,
      num_sequences: this.sequences,
      num_threads: this.threads,
    } = this.#handle.info);
  }

  /**
   * Whether llama.cpp runs as if nobody watched while nothing is captured, which is all the time but
   * at a prompt's end: known after the first prompt. False on systems other than Linux, and where
   * another part of the process had loaded libllama first; on a GPU it is slower then.
   */
  get isUnhooked(): boolean {
    return this.#handle.readInfo().is_unhooked === 1;
  }

  /**
   * Adds a prompt to the end of a sequence.
   *
   * @param input A text, its tokens, or chat messages. Messages are written with the model's chat
   * template; later ones continue the conversation, the assistant's generated turns included.
   * @param options Settings. With `streaming` the prompt may be longer than the cache.
   * @returns What it did.
   * @throws {ChunkKvError} `invalid_argument` if the prompt is empty or has more tokens than the
   * context; `engine` if the cache is full; `cancelled`. The sequence is then as it was; only where
   * `streaming` has compacted it, it keeps the prompt up to there.
   */
  async prefill(input: PromptInput, options: PrefillOptions = {}): Promise<PrefillReport> {
    const sequence = options.sequence ?? 0;
    const isFirst = this.tokenCount(sequence) === 0;
    const { tokens, accept } = this.#prompts.read(input, sequence, isFirst);
    const report = options.streaming
      ? await stream(this.#handle, tokens, options, () => this.#prompts.forget(sequence))
      : await prefill(this.#handle, tokens, this.batchSize, options);
    accept();
    return report;
  }

  /**
   * Keeps the tokens of a sequence that matter most, in every layer its own, and frees the rest of
   * its cache. Positions go on as if nothing had been dropped. Keeping everything does nothing.
   *
   * @param options What to keep.
   * @returns What it did.
   * @throws {ChunkKvError} `invalid_argument` if a setting is out of its range or the sequence is too
   * short for it; `unsupported` if the model, the context or the sequence cannot be compressed. The
   * sequence is then as it was.
   */
  compress(options: CompressOptions): CompressionReport {
    const { sequence, params, keep, report } = packCompression(options);
    const start = performance.now();
    this.#handle.unwrap(
      bridge().ckv_llama_compress(this.#handle.idle, sequence, params, keep, report),
    );
    return readReport(this.#handle, report, performance.now() - start);
  }

  /**
   * The same as {@linkcode compress} on another thread.
   *
   * @param options What to keep.
   * @returns What it did.
   * @throws {ChunkKvError} As `compress`.
   */
  async compressAsync(options: CompressOptions): Promise<CompressionReport> {
    return await compressAsync(this.#handle, options);
  }

  /**
   * Keeps given tokens of a sequence.
   *
   * @param layers For each layer (those without a sliding window, by rising number) indices into the
   * cached tokens, rising, the last one the newest token; one set, or one per kv head. All layers
   * keep equally many.
   * @param options `sequence`: which one.
   * @returns What it did.
   * @throws {ChunkKvError} As `compress`.
   */
  compact(layers: LayerIndices, options: { sequence?: number } = {}): CompressionReport {
    const { numLayers, numHeads, numKept, data } = packIndices(layers);
    const report = packStruct(REPORT, {});
    const start = performance.now();
    this.#handle.unwrap(
      bridge().ckv_llama_compact(
        this.#handle.idle,
        checkSequence(options.sequence ?? 0),
        numLayers,
        numHeads,
        numKept,
        data,
        report,
      ),
    );
    return readReport(this.#handle, report, performance.now() - start);
  }

  /**
   * Generates text from where a sequence ends, after its prompt.
   *
   * @param options Settings.
   * @returns Pieces of text, whole characters each; at the end how it ended.
   * @throws {ChunkKvError} `cancelled`; `engine` if the cache is full; `invalid_argument`.
   */
  generate(options: GenerateOptions = {}): AsyncGenerator<string, GenerateResult, void> {
    const sequence = options.sequence ?? 0;
    return generate({
      model: this.#modelHandle,
      context: this.#handle,
      tokenizer: this.#model.tokenizer,
      onPiece: (piece) => this.#prompts.hear(piece, sequence),
    }, options);
  }

  /**
   * Generates text in several sequences at once, each token of all of them in one batch: on most
   * machines that is faster than one sequence after the other.
   *
   * @param sequences Which sequences; each ends with a prompt or a generated token.
   * @param options Settings, the same for all.
   * @returns For each sequence its text and how it ended.
   * @throws {ChunkKvError} `cancelled`; `engine` if the cache is full; `invalid_argument`.
   */
  async generateEach(
    sequences: readonly number[],
    options: GenerateEachOptions = {},
  ): Promise<GeneratedText[]> {
    const results = await generateEach(
      { model: this.#modelHandle, context: this.#handle, tokenizer: this.#model.tokenizer },
      sequences,
      options,
    );
    results.forEach(({ text }, i) => this.#prompts.hear(text, sequences[i] ?? 0));
    return results;
  }

  /**
   * What the model would say after each of some tokens if a sequence went on with them. The sequence
   * stays what it was.
   *
   * @param tokens The tokens.
   * @param options Settings.
   * @returns Their logits, `[tokens.length, vocabSize]`: row `i` is what comes after token `i`.
   * @throws {ChunkKvError} `invalid_argument` if there is no token, or one that the model does not
   * know; `engine` if the cache is full; `cancelled`.
   */
  async score(
    tokens: ArrayLike<number>,
    options: ScoreOptions = {},
  ): Promise<Float32Array<ArrayBuffer>> {
    return await score(this.#handle, tokens, this.#model.tokenizer.vocabSize, options);
  }

  /**
   * The logits after the newest token of a sequence: a copy, one for each token that the model knows.
   *
   * @param sequence Which sequence.
   * @returns The logits.
   * @throws {ChunkKvError} `invalid_argument` if the sequence is empty or was cut.
   */
  logits(sequence = 0): Float32Array<ArrayBuffer> {
    checkSequence(sequence);
    const logits = new Float32Array(this.#model.tokenizer.vocabSize);
    this.#handle.unwrap(
      bridge().ckv_llama_logits(this.#handle.idle, sequence, logits, logits.length),
    );
    return logits;
  }

  /**
   * Tokens that a sequence has seen; the next one gets this position. Compression leaves it alone.
   * While a prompt goes in, `onProgress` can ask for it.
   */
  tokenCount(sequence = 0): number {
    return this.#handle.count(
      bridge().ckv_llama_sequence_length(this.#handle.idle, checkSequence(sequence)),
    );
  }

  /** Tokens of a sequence that are in the cache. */
  cellCount(sequence = 0): number {
    return this.#handle.count(
      bridge().ckv_llama_sequence_cells(this.#handle.idle, checkSequence(sequence)),
    );
  }

  /** Bytes of keys and values that a sequence has in the cache. */
  kvBytes(sequence = 0): number {
    return this.#handle.count(
      bridge().ckv_llama_sequence_bytes(this.#handle.idle, checkSequence(sequence)),
    );
  }

  /** The position of each cached token of a sequence, rising. */
  positions(sequence = 0): Int32Array<ArrayBuffer> {
    const positions = new Int32Array(this.cellCount(sequence));
    this.#handle.count(
      bridge().ckv_llama_sequence_positions(
        this.#handle.idle,
        sequence,
        positions,
        positions.length,
      ),
    );
    return positions;
  }

  /** Empties a sequence. */
  clear(sequence = 0): void {
    this.remove(0, undefined, sequence);
  }

  /**
   * Removes positions `from` up to and without `to`, by default to the end.
   *
   * @throws {ChunkKvError} `unsupported` if a compression has left each layer tokens of its own there:
   * then only the newest tokens, which all layers kept, or all tokens can be removed.
   */
  remove(from: number, to?: number, sequence = 0): void {
    checkInteger("from", from, 0);
    if (to !== undefined) checkInteger("to", to, 0);
    checkSequence(sequence);
    this.#handle.unwrap(
      bridge().ckv_llama_sequence_remove(this.#handle.idle, sequence, from, to ?? -1),
    );
    this.#prompts.forget(sequence);
  }

  /**
   * Makes sequence `to` a copy of `from`. They share the cache's cells, so neither can be compressed
   * until the other is cleared.
   */
  copy(from: number, to: number): void {
    checkSequence(from);
    checkSequence(to);
    this.#handle.unwrap(bridge().ckv_llama_sequence_copy(this.#handle.idle, from, to));
    this.#prompts.forget(to);
  }

  /** Adds `delta` to the positions of all tokens of a sequence; keys follow at the next decoding. */
  shift(delta: number, sequence = 0): void {
    checkInteger("delta", delta, -MAX_INT32);
    checkSequence(sequence);
    this.#handle.unwrap(bridge().ckv_llama_sequence_shift(this.#handle.idle, sequence, delta));
  }

  /** llama.cpp's serialised state of a sequence. */
  saveState(sequence = 0): Uint8Array<ArrayBuffer> {
    const size = this.#handle.count(
      bridge().ckv_llama_state_size(this.#handle.idle, checkSequence(sequence)),
    );
    const state = new Uint8Array(size);
    const read = bridge().ckv_llama_state_get(this.#handle.idle, sequence, state, BigInt(size));
    check(Number(read) === size, `${size} bytes of state`, read);
    return state;
  }

  /**
   * The attention that a sequence's tokens have got, in a context with `accumulateAttention`. With the
   * state of the same moment it lets a restored sequence be compressed by `h2o`.
   *
   * @param sequence Which sequence.
   * @returns A copy.
   * @throws {ChunkKvError} `invalid_argument` if the context does not add it up, or that of some
   * queries is missing: after a restored state, or when tokens were removed from the end.
   */
  saveAttention(sequence = 0): AccumulatedAttention {
    return saveAttention(this.#handle, sequence);
  }

  /**
   * Replaces a sequence by a state of {@linkcode saveState}.
   *
   * @param state The state.
   * @param options `sequence`: which one; `tokens`: its newest tokens, by which it can be compressed
   * before the next prompt; `attention`: that of {@linkcode saveAttention}, for `h2o`.
   * @throws {ChunkKvError} `invalid_argument` if it is none that fits this context, and the sequence
   * is as it was; `engine` if llama.cpp does not take it, and the sequence is empty.
   */
  restoreState(
    state: Uint8Array<ArrayBuffer>,
    options: {
      sequence?: number;
      tokens?: ArrayLike<number>;
      attention?: AccumulatedAttention;
    } = {},
  ): void {
    const { sequence = 0, tokens = [] } = options;
    checkSequence(sequence);
    const newest = checkTokens(tokens, this.#model.tokenizer.vocabSize);
    this.#handle.unwrap(
      bridge().ckv_llama_state_set(
        this.#handle.idle,
        sequence,
        state,
        BigInt(state.length),
        newest,
        newest.length,
      ),
    );
    if (options.attention) restoreAttention(this.#handle, sequence, options.attention);
    this.#prompts.forget(sequence);
  }

  /**
   * Keeps a sequence aside in memory: its state, its tokens and logits, and what compression has seen
   * of it.
   *
   * @param sequence Which sequence.
   * @returns The snapshot; dispose of it.
   * @throws {ChunkKvError} `out_of_memory`, `engine`.
   */
  snapshot(sequence = 0): LlamaSnapshot {
    const handle = new SnapshotHandle(this.#modelHandle);
    try {
      this.#handle.unwrap(
        bridge().ckv_llama_snapshot_take(
          this.#handle.idle,
          checkSequence(sequence),
          handle.pointer,
        ),
      );
      return new LlamaSnapshot(handle, this.tokenCount(sequence));
    } catch (error) {
      handle.dispose();
      throw error;
    }
  }

  /**
   * Replaces a sequence by a snapshot, as often as wanted. In the context that it was taken from the
   * sequence can be compressed after the next token or prompt just as the original could.
   *
   * @param snapshot A snapshot of this context, or of another one with the same model and types.
   * @param options `sequence`: which one.
   * @throws {ChunkKvError} `invalid_argument` if it does not fit this context, and the sequence is as
   * it was; `engine` if llama.cpp does not take it, and the sequence is empty.
   */
  restore(snapshot: LlamaSnapshot, options: { sequence?: number } = {}): void {
    const sequence = checkSequence(options.sequence ?? 0);
    this.#handle.unwrap(
      bridge().ckv_llama_snapshot_restore(this.#handle.idle, sequence, snapshot.handle.pointer),
    );
    this.#prompts.forget(sequence);
  }

  /** Frees the cache, at the latest when a running call is back; that is asked to stop. */
  [Symbol.dispose](): void {
    if (this.#handle.isRunning) this.#handle.cancel();
    this.#handle.dispose();
  }
}
