/**
 * Models of a few kilobytes with random weights, for tests that run the real engine often.
 *
 * @module
 */

const WIDTH = 64;
const LAYERS = 4;
const HEADS = 4;
const KV_HEADS = 2;
const TOKENS = 96;

type Value = string | number | { float: number };

/**
 * Writes a model as GGUF.
 *
 * @param path The file.
 * @param slidingWindow Tokens that every second layer attends to, as in Gemma 2; by default all
 * layers attend to everything, as in Llama.
 */
export function writeTinyModel(path: string, slidingWindow?: number): void {
  const text = slidingWindow === undefined ? "llama" : "gemma2";
  const keyValues: [string, Value][] = [
    ["general.architecture", text],
    [`${text}.context_length`, 1024],
    [`${text}.embedding_length`, WIDTH],
    [`${text}.block_count`, LAYERS],
    [`${text}.feed_forward_length`, WIDTH],
    [`${text}.attention.head_count`, HEADS],
    [`${text}.attention.head_count_kv`, KV_HEADS],
    [`${text}.attention.layer_norm_rms_epsilon`, { float: 1e-5 }],
    [`${text}.rope.dimension_count`, WIDTH / HEADS],
    [`${text}.vocab_size`, TOKENS],
    ...(slidingWindow === undefined
      ? []
      : [[`${text}.attention.sliding_window`, slidingWindow] as [string, Value]]),
    ["tokenizer.ggml.model", "no_vocab"],
  ];
  Deno.writeFileSync(path, gguf(keyValues, tensors(slidingWindow !== undefined)));
}

function tensors(isGemma: boolean): [string, number[]][] {
  const keys = WIDTH / HEADS * KV_HEADS;
  const list: [string, number[]][] = [
    ["token_embd.weight", [WIDTH, TOKENS]],
    ["output_norm.weight", [WIDTH]],
    // Gemma's is its embedding.
    ...(isGemma ? [] : [["output.weight", [WIDTH, TOKENS]] as [string, number[]]]),
  ];
  for (let layer = 0; layer < LAYERS; layer++) {
    const add = (name: string, ...shape: number[]) =>
      list.push([`blk.${layer}.${name}.weight`, shape]);
    add("attn_norm", WIDTH);
    add("attn_q", WIDTH, WIDTH);
    add("attn_k", WIDTH, keys);
    add("attn_v", WIDTH, keys);
    add("attn_output", WIDTH, WIDTH);
    add("ffn_norm", WIDTH);
    add("ffn_gate", WIDTH, WIDTH);
    add("ffn_up", WIDTH, WIDTH);
    add("ffn_down", WIDTH, WIDTH);
    if (isGemma) (add("post_attention_norm", WIDTH), add("post_ffw_norm", WIDTH));
  }
  return list;
}

/** The file format: header, key-values, tensor infos, and from the next 32 bytes on f32 data. */
function gguf(keyValues: [string, Value][], tensors: [string, number[]][]): Uint8Array {
  const parts: Uint8Array[] = [];
  const u32 = (value: number) => parts.push(new Uint8Array(new Uint32Array([value]).buffer));
  const u64 = (value: number) =>
    parts.push(new Uint8Array(new BigUint64Array([BigInt(value)]).buffer));
  const f32 = (value: number) => parts.push(new Uint8Array(new Float32Array([value]).buffer));
  const string = (text: string) => {
    u64(text.length);
    parts.push(new TextEncoder().encode(text));
  };
  parts.push(new TextEncoder().encode("GGUF"));
  u32(3);
  u64(tensors.length);
  u64(keyValues.length);
  for (const [key, value] of keyValues) {
    string(key);
    if (typeof value === "string") (u32(8), string(value));
    else if (typeof value === "number") (u32(4), u32(value));
    else (u32(6), f32(value.float));
  }
  let offset = 0;
  for (const [name, shape] of tensors) {
    string(name);
    u32(shape.length);
    shape.forEach(u64);
    u32(0);
    u64(offset);
    offset += 4 * shape.reduce((a, b) => a * b);
  }
  const header = parts.reduce((bytes, part) => bytes + part.length, 0);
  parts.push(new Uint8Array((32 - header % 32) % 32));
  let state = 1;
  for (const [name, shape] of tensors) {
    const data = new Float32Array(shape.reduce((a, b) => a * b)).map(() => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return shape.length === 1 ? 1 : (state / 2 ** 32 - 0.5) / (name === "output.weight" ? 1 : 2);
    });
    parts.push(new Uint8Array(data.buffer));
  }
  return new Uint8Array(parts.flatMap((part) => [...part]));
}
