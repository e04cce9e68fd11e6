/**
 * A loaded model.
 *
 * @module
 */
import { STATUS, unwrap } from "../../ffi/status.ts";
import { abortable, throwIfAborted } from "./abort.ts";
import { applyChatTemplate, type ChatMessage, type ChatTemplateOptions } from "./chat.ts";
import { LlamaContext } from "./context.ts";
import type { LlamaContextOptions } from "./context_options.ts";
import { type Engine, type LlamaEngineInfo, loadEngine } from "./engine.ts";
import { bridge, cString, fetchBytes, Handle, readText } from "./native.ts";
import { MODEL_INFO, MODEL_PARAMS, packStruct, readStruct } from "./structs.ts";
import { LlamaTokenizer } from "./tokenizer.ts";

/** How {@linkcode LlamaModel.load} loads. */
export interface LlamaModelOptions {
  /** Path of libllama; without one it is looked for. */
  libraryPath?: string;
  /** Layers to keep on a GPU, if the engine has one; -1: all. @default {0} */
  gpuLayers?: number;
  /** Whether to map the file into memory instead of reading it. @default {true} */
  useMmap?: boolean;
  /** Called with the fraction that is loaded, 0 to 1. */
  onProgress?: (fraction: number) => void;
  /** Stops the loading. */
  signal?: AbortSignal;
}

/** What is known of a model. */
export interface LlamaModelInfo {
  /** Kind, size and quantisation in words. */
  readonly description: string;
  /** Tokens that it knows. */
  readonly vocabSize: number;
  /** Tokens of context that it was trained for. */
  readonly trainedContext: number;
  /** Layers. */
  readonly numLayers: number;
  /** Size of its embeddings. */
  readonly embeddingSize: number;
  /** Query heads. */
  readonly numQHeads: number;
  /** Key and value heads. */
  readonly numKvHeads: number;
  /** Tokens that its sliding-window layers see; 0: it has none. */
  readonly slidingWindow: number;
  /** Bytes of its weights. */
  readonly sizeBytes: number;
  /** Weights. */
  readonly numParameters: number;
}

const POLL_MILLISECONDS = 50;

/**
 * A model in GGUF format, loaded by llama.cpp.
 *
 * Needs the permissions `ffi`, `read` and `env`.
 */
export class LlamaModel implements Disposable {
  readonly #engine: Engine;
  readonly #handle: Handle;
  readonly #contexts = new Set<WeakRef<LlamaContext>>();
  /** What is known of the model. */
  readonly info: LlamaModelInfo;
  /** Its vocabulary. */
  readonly tokenizer: LlamaTokenizer;

  private constructor(engine: Engine, handle: Handle) {
    this.#engine = engine;
    this.#handle = handle;
    this.info = readInfo(handle);
    this.tokenizer = new LlamaTokenizer(handle, this.info.vocabSize);
  }

  /**
   * Loads a model.
   *
   * @param path Path of the GGUF file.
   * @param options How to load it.
   * @returns The model; dispose of it, which disposes of its contexts too.
   * @throws {ChunkKvError} `engine` if the file is not a model that llama.cpp can load, with what it
   * said; `cancelled`; and what loading libllama throws: `library_not_found`,
   * `library_not_loadable`, `abi_mismatch`.
   */
  static async load(path: string, options: LlamaModelOptions = {}): Promise<LlamaModel> {
    const { libraryPath, gpuLayers = 0, useMmap = true, onProgress, signal } = options;
    throwIfAborted(signal);
    const engine = await loadEngine(libraryPath);
    const native = bridge();
    const handle = new Handle(
      "a model",
      native.ckv_llama_model_new(engine.handle.pointer),
      freeModel,
    );
    const file = cString(path, "a path");
    const params = packStruct(MODEL_PARAMS, {
      gpu_layers: gpuLayers,
      use_mmap: Number(useMmap),
    });
    const cancel = () => native.ckv_llama_model_cancel(handle.pointer);
    const progress = () => onProgress?.(native.ckv_llama_model_progress(handle.pointer));
    const poll = onProgress && setInterval(progress, POLL_MILLISECONDS);
    try {
      throwIfAborted(signal);
      const status = await abortable(
        signal,
        cancel,
        () => handle.run((pointer) => native.ckv_llama_model_load_async(pointer, file, params)),
      );
      if (status === STATUS.cancelled) throwIfAborted(signal);
      unwrap(status, () => readText(native.ckv_llama_model_error(handle.pointer)));
      progress();
      return new LlamaModel(engine, handle);
    } catch (error) {
      handle.dispose();
      throw error;
    } finally {
      clearInterval(poll);
    }
  }

  /** The library that runs the model. */
  get engine(): LlamaEngineInfo {
    const { path, version, release } = this.#engine;
    return { path, version, release };
  }

  /**
   * Makes a context: a KV cache, and what it takes to run the model.
   *
   * @param options Its sizes and types.
   * @returns The context; dispose of it.
   * @throws {ChunkKvError} `invalid_argument` if an option is out of its range, `engine` if llama.cpp
   * cannot make it, with what it said.
   */
  createContext(options: LlamaContextOptions = {}): LlamaContext {
    const context = new LlamaContext(this, this.#handle, options);
    for (const known of this.#contexts) if (!known.deref()) this.#contexts.delete(known);
    this.#contexts.add(new WeakRef(context));
    return context;
  }

  /**
   * Writes chat messages with the model's chat template.
   *
   * @param messages The messages, oldest first.
   * @param options How to write them.
   * @returns The text, control tokens written out.
   * @throws {ChunkKvError} `unsupported` if the model has no template or llama.cpp does not know it.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    return applyChatTemplate(this.#handle, messages, options);
  }

  /** The model's own chat template, a Jinja text; `undefined` if it has none. */
  get chatTemplate(): string | undefined {
    const { ckv_llama_model_chat_template } = bridge();
    return text((buffer) =>
      ckv_llama_model_chat_template(this.#handle.pointer, buffer, buffer.length)
    );
  }

  /**
   * A value from the model file's metadata.
   *
   * @param key Its key, such as `general.architecture`.
   * @returns The value as text; `undefined` if there is none or it is a list.
   */
  metadata(key: string): string | undefined {
    const { ckv_llama_model_metadata } = bridge();
    const name = cString(key, "a key");
    return text((buffer) =>
      ckv_llama_model_metadata(this.#handle.pointer, name, buffer, buffer.length)
    );
  }

  /** Disposes of the model's contexts and of the model. Doing it again does nothing. */
  [Symbol.dispose](): void {
    for (const context of this.#contexts) context.deref()?.[Symbol.dispose]();
    this.#contexts.clear();
    this.#handle.dispose();
  }
}

// Outside of load(): it must not keep alive what it frees.
function freeModel(pointer: Deno.PointerObject): void {
  bridge().ckv_llama_model_free(pointer);
}

function readInfo(handle: Handle): LlamaModelInfo {
  const native = bridge();
  const packed = packStruct(MODEL_INFO, {});
  unwrap(
    native.ckv_llama_model_get_info(handle.pointer, packed),
    () => readText(native.ckv_llama_model_error(handle.pointer)),
  );
  const info = readStruct(MODEL_INFO, packed);
  return Object.freeze({
    description: text((buffer) =>
      native.ckv_llama_model_description(handle.pointer, buffer, buffer.length)
    ) ?? "",
    vocabSize: info.vocab_size,
    trainedContext: info.trained_context,
    numLayers: info.num_layers,
    embeddingSize: info.embedding_size,
    numQHeads: info.num_q_heads,
    numKvHeads: info.num_kv_heads,
    slidingWindow: info.sliding_window,
    sizeBytes: info.size_bytes,
    numParameters: info.num_parameters,
  });
}

function text(read: (buffer: Uint8Array<ArrayBuffer>) => number): string | undefined {
  const bytes = fetchBytes(read);
  return typeof bytes === "number" ? undefined : new TextDecoder().decode(bytes);
}
