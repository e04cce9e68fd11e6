/**
 * `requantize.ts FROM TO`: a GGUF model with its matrices in Q8_0, by the engine's own quantizer.
 *
 * @module
 */
import { llamaEngine } from "../bindings/llama_cpp/engine.ts";

const Q8_0 = 7; // LLAMA_FTYPE_MOSTLY_Q8_0

// llama_model_quantize_params of the release that setup installs: threads, ftype, two tensor types; six
// flags, of which the first allows what is quantized already; four pointers and a size.
const PARAMS = {
  struct: [
    ...["i32", "i32", "i32", "i32"],
    ...["bool", "bool", "bool", "bool", "bool", "bool"],
    ...["pointer", "pointer", "pointer", "pointer", "usize"],
  ],
} as Deno.NativeStructType;
const FTYPE_AT = 4;
const ALLOW_REQUANTIZE_AT = 16;

const [from, to] = Deno.args;
if (from === undefined || to === undefined) {
  console.error("Expected the paths of a GGUF file and of the one to be made");
  Deno.exit(2);
}
const { path } = await llamaEngine(); // refuses other releases, which may lay out parameters otherwise
const library = Deno.dlopen(path, {
  llama_model_quantize_default_params: { parameters: [], result: PARAMS },
  llama_model_quantize: { parameters: ["buffer", "buffer", "buffer"], result: "u32" },
});
const params = library.symbols.llama_model_quantize_default_params();
const view = new DataView(params.buffer, params.byteOffset);
view.setUint32(FTYPE_AT, Q8_0, true);
view.setUint8(ALLOW_REQUANTIZE_AT, 1);
const cString = (text: string) => new TextEncoder().encode(`${text}\0`);
const failed = library.symbols.llama_model_quantize(cString(from), cString(to), params);
library.close();
Deno.exit(failed === 0 ? 0 : 1);
