"""What transformers answers when only given rows of each layer's KV cache stay after the prompt."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache


@cache
def _model(folder: Path) -> torch.nn.Module:
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()


@torch.no_grad()
def greedy(
    folder: Path, prompt: list[int], tokens: int, kept: list[list[list[int]]] | None = None
) -> list[int]:
    """A greedy continuation; kept: indices by layer and head, one head standing for all."""
    model, n = _model(folder), len(prompt)
    output = model(torch.tensor([prompt]), use_cache=True)
    cache_ = output.past_key_values
    if kept is not None:
        full, cache_ = cache_, DynamicCache()
        for layer, heads in enumerate(kept):
            keys, values = full.layers[layer].keys, full.layers[layer].values
            rows = torch.tensor(heads).expand(keys.shape[1], -1)[None, :, :, None]
            rows = rows.expand(-1, -1, -1, keys.shape[-1])
            cache_.update(keys.gather(2, rows), values.gather(2, rows), layer)
    answer = [int(output.logits[0, -1].argmax())]
    while len(answer) < tokens:
        position = torch.tensor([[n + len(answer) - 1]])
        output = model(
            torch.tensor([answer[-1:]]),
            past_key_values=cache_,
            position_ids=position,
            use_cache=True,
        )
        answer.append(int(output.logits[0, -1].argmax()))
    return answer
