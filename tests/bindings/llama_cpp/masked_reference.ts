/**
 * The reference: the engine with its whole cache, each layer masking what it does not keep.
 *
 * @module
 */
import { openLibrary } from "../../../ffi/open_library.ts";
import { libraryFileName, libraryPaths } from "../../../ffi/library_path.ts";
import type { LlamaModel } from "chunkkv/llama-cpp";
import { THREADS } from "./models.ts";

const symbols = {
  masked_reference_version: { parameters: [], result: "u32" },
  masked_reference_new: {
    parameters: ["buffer", "buffer", "buffer", "i32", "i32", "i32"],
    result: "pointer",
  },
  masked_reference_free: { parameters: ["pointer"], result: "void" },
  masked_reference_drop: { parameters: ["pointer", "i32", "i32", "buffer", "i32"], result: "i32" },
  masked_reference_forget: { parameters: ["pointer"], result: "void" },
  masked_reference_decode: {
    parameters: ["pointer", "buffer", "i32", "i32", "buffer"],
    result: "i32",
  },
  masked_reference_attention: {
    parameters: ["pointer", "i32", "i32", "buffer", "i32"],
    result: "i32",
  },
} as const;

/** Numbers of `ggml_type`. */
export const GGML_TYPES = { f32: 0, f16: 1, q8_0: 8, bf16: 30 } as const;

/** A model that masks tokens layer by layer. */
export class MaskedReference implements Disposable {
  readonly #library: Deno.DynamicLibrary<typeof symbols>;
  readonly #pointer: Deno.PointerObject;
  readonly #vocabSize: number;

  constructor(
    model: LlamaModel,
    path: string,
    options: { contextSize?: number; type?: keyof typeof GGML_TYPES } = {},
  ) {
    // It is built next to the bridge.
    const [bridge = ""] = libraryPaths("chunkkv_llama", "CHUNKKV_LLAMA_BRIDGE").candidates;
    this.#library = openLibrary({
      name: "the masked reference",
      path: bridge.replace(/[^/]*$/, libraryFileName("ckv_masked_reference")),
      symbols,
      abi: { symbol: "masked_reference_version", expected: 1 },
    });
    const text = (value: string) => new TextEncoder().encode(`${value}\0`);
    const pointer = this.#library.symbols.masked_reference_new(
      text(model.engine.path),
      text(model.engine.path.replace(/\/[^/]*$/, "")),
      text(path),
      options.contextSize ?? 512,
      GGML_TYPES[options.type ?? "f16"],
      THREADS,
    );
    if (pointer === null) throw new Error("Expected the reference to load but it did not");
    this.#pointer = pointer;
    this.#vocabSize = model.info.vocabSize;
  }

  /**
   * Hides all tokens but the kept ones from a layer, of `count` that are cached: one set for all heads,
   * or one per kv head.
   */
  keepOnly(layer: number, sets: readonly ArrayLike<number>[], count: number): void {
    sets.forEach((kept, head) => {
      const dropped = new Uint8Array(count).fill(1);
      for (let i = 0; i < kept.length; i++) dropped[kept[i] ?? -1] = 0;
      this.#check(
        this.#library.symbols.masked_reference_drop(this.#pointer, layer, head, dropped, count),
      );
    });
  }

  /** Hides nothing any more. */
  forget(): void {
    this.#library.symbols.masked_reference_forget(this.#pointer);
  }

  /** Decodes tokens and returns the newest one's logits. */
  decode(tokens: ArrayLike<number>, window = 0): Float32Array {
    const logits = new Float32Array(this.#vocabSize);
    const copy = Int32Array.from(tokens);
    this.#check(
      this.#library.symbols.masked_reference_decode(
        this.#pointer,
        copy,
        copy.length,
        window,
        logits,
      ),
    );
    return logits;
  }

  /** What attention each cell got from the window of the last decode call, for each kv head. */
  attention(layer: number, cells: number, numHeads: number): Float64Array[] {
    return Array.from({ length: numHeads }, (_, head) => {
      const sums = new Float64Array(cells);
      this.#check(
        this.#library.symbols.masked_reference_attention(this.#pointer, layer, head, sums, cells),
      );
      return sums;
    });
  }

  [Symbol.dispose](): void {
    this.#library.symbols.masked_reference_free(this.#pointer);
    this.#library.close();
  }

  #check(result: number): void {
    if (result !== 0) {
      throw new Error(`Expected the reference to succeed but it returned ${result}`);
    }
  }
}
