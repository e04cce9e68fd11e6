"""A model of random weights in the shape of Llama 3 8B, Q4_0, 4.5 GB: for speed only.

    pip install gguf numpy
    python3 random_model.py OUT.gguf [--context 262144]
"""

import argparse

import gguf
import numpy as np

EMBEDDING, FEED_FORWARD, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = (
    4096, 14336, 32, 32, 8, 128, 128256)


def random_q4_0(rng, rows, columns):
    """A tensor of equal scales and random nibbles; rows repeat after the first 1,024."""
    blocks = columns // 32
    data = np.empty((rows, blocks, 18), np.uint8)
    data[:, :, :2] = np.full((rows, blocks, 1), 0.02 / 8, np.float16).view(np.uint8)
    nibbles = rng.integers(0, 256, (min(rows, 1024), blocks, 16), dtype=np.uint8)
    data[:, :, 2:] = np.tile(nibbles, (-(-rows // nibbles.shape[0]), 1, 1))[:rows]
    return data.reshape(rows, blocks * 18)


def vocabulary():
    """The bytes as byte-level BPE writes them, then made-up tokens."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in visible]
    characters = [chr(b) for b in visible] + [chr(256 + i) for i in range(len(hidden))]
    return characters + [f"<{i}>" for i in range(len(characters), VOCABULARY)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--context", type=int, default=262144)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(args.out, "llama")
    writer.add_context_length(args.context)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(2)
    tokens = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges([f"{tokens[0]} {tokens[1]}"])

    def add(name, rows, columns):
        data = random_q4_0(rng, rows, columns)
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    def add_ones(name):
        writer.add_tensor(name, np.ones(EMBEDDING, np.float32))

    add("token_embd.weight", VOCABULARY, EMBEDDING)
    add("output.weight", VOCABULARY, EMBEDDING)
    add_ones("output_norm.weight")
    for layer in range(LAYERS):
        prefix = f"blk.{layer}."
        add_ones(prefix + "attn_norm.weight")
        add_ones(prefix + "ffn_norm.weight")
        add(prefix + "attn_q.weight", EMBEDDING, EMBEDDING)
        add(prefix + "attn_k.weight", KV_HEADS * HEAD_DIM, EMBEDDING)
        add(prefix + "attn_v.weight", KV_HEADS * HEAD_DIM, EMBEDDING)
        add(prefix + "attn_output.weight", EMBEDDING, EMBEDDING)
        add(prefix + "ffn_gate.weight", FEED_FORWARD, EMBEDDING)
        add(prefix + "ffn_up.weight", FEED_FORWARD, EMBEDDING)
        add(prefix + "ffn_down.weight", EMBEDDING, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
