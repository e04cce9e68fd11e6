/**
 * A loaded libllama. Each library is loaded once for the life of the process.
 *
 * @module
 */
import { ChunkKvError, STATUS } from "../../ffi/status.ts";
import { enginePath } from "./engine_path.ts";
import { bridge, cString, Handle, readText } from "./native.ts";

/** What is known of a loaded libllama. */
export interface LlamaEngineInfo {
  /** Path of the library. */
  readonly path: string;
  /** What the library says its version is, such as `0.5.0-dev`. */
  readonly version: string;
  /** The release that the bridge was compiled for. */
  readonly release: string;
}

/** A loaded libllama and its handle. */
export interface Engine extends LlamaEngineInfo {
  readonly handle: Handle;
}

const engines = new Map<string, Engine>();

/**
 * Loads libllama, or finds it loaded.
 *
 * @param libraryPath Its path; without one it is looked for.
 * @returns The engine.
 * @throws {ChunkKvError} `library_not_found`, `library_not_loadable`, or `abi_mismatch` if it is of
 * another release than the bridge was compiled for.
 */
export async function loadEngine(libraryPath?: string): Promise<Engine> {
  const native = bridge();
  const path = await enginePath(libraryPath);
  const known = engines.get(path);
  if (known) return known;
  const handle = new Handle("a llama.cpp engine", native.ckv_llama_engine_new(), freeEngine);
  const directory = path.replace(/[/\\][^/\\]*$/, "");
  const status = native.ckv_llama_engine_open(
    handle.pointer,
    cString(path, "a path"),
    cString(directory === path ? "." : directory, "a path"),
  );
  if (status !== STATUS.ok) {
    const text = readText(native.ckv_llama_engine_error(handle.pointer));
    handle.dispose();
    const code = status === STATUS.unsupported ? "abi_mismatch" : "library_not_loadable";
    throw new ChunkKvError(code, text);
  }
  const engine: Engine = {
    path,
    version: readText(native.ckv_llama_engine_version(handle.pointer)),
    release: readText(native.ckv_llama_release()),
    handle,
  };
  engines.set(path, engine);
  return engine;
}

// Outside of loadEngine(): it must not keep alive what it frees.
function freeEngine(pointer: Deno.PointerObject): void {
  bridge().ckv_llama_engine_free(pointer);
}

/**
 * Finds and loads libllama without a model, for a look at what there is.
 *
 * @param options `libraryPath`: where libllama is; without one it is looked for.
 * @returns Its path and version.
 * @throws {ChunkKvError} `library_not_found`, `library_not_loadable` or `abi_mismatch`.
 */
export async function llamaEngine(
  options: { libraryPath?: string } = {},
): Promise<LlamaEngineInfo> {
  const { path, version, release } = await loadEngine(options.libraryPath);
  return { path, version, release };
}
