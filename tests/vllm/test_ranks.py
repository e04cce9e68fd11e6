"""Two tensor-parallel ranks on the CPU: the same indices as one rank chooses."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from conftest import Run, plugin

LAYERS = 3


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose heads divide by two."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        vocab_size=512,
        max_position_embeddings=1024,
        # Larger weights than usual: attention that is not flat.
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_two_ranks_keep_what_one_rank_keeps(run: Run, small_model: Path) -> None:
    rng = random.Random(3)
    prompts = [[rng.randrange(512) for _ in range(n)] for n in (400, 290)]

    def answers(ranks: int) -> dict:
        engine = {
            "model": str(small_model),
            "skip_tokenizer_init": True,
            "tensor_parallel_size": ranks,
            "kv_cache_memory_bytes": 1 << 26,
        } | plugin(keep=0.3, record=True)
        return run("ranks", {"engine": engine, "prompts": prompts, "tokens": 16})

    one, two = answers(1), answers(2)
    (kept,) = one["kept"]
    assert [len(layers) for layers in kept] == [LAYERS, LAYERS]
    assert [[len(head) for head in layers[0]] for layers in kept] == [[120], [87]]
    # Not the newest tokens alone: attention chose.
    assert all(layers[0][0][0] < 290 // 2 for layers in kept)
    assert two["kept"] == [kept, kept]
    assert two["outputs"] == one["outputs"]
    # A rank whose rows are lost tells the others, and the request ends.
    assert two["failed"] == one["failed"] == "error"
