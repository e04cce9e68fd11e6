"""Pages: rows in one piece, as CUDA backends have them, and packed, as the CPU's has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from chunkkv_vllm.layout import open_pages
from chunkkv_vllm.native import Library
from chunkkv_vllm.pages import PackedPages, Pages, PagesError, RowPages
from chunkkv_vllm.plan import Compaction

BLOCKS, HEADS, SIZE, DIM = 24, 3, 32, 32


class RowWriter:
    """Writes rows by the cache's logical shape, as the CUDA backends do, whatever the strides."""

    scale = 0.17

    def do_kv_cache_update(
        self, layer: Any, keys: torch.Tensor, values: torch.Tensor, cache: Any, slots: torch.Tensor
    ) -> None:
        """keys, values: (rows, heads, dim)."""
        cache[slots // SIZE, :, slots % SIZE] = torch.cat((keys, values), dim=-1)


class PackedWriter:
    """vLLM's own CPU kernel, which packs keys by instruction set."""

    scale = 0.17

    def __init__(self, isa: str) -> None:
        self.isa = isa

    def do_kv_cache_update(
        self, layer: Any, keys: torch.Tensor, values: torch.Tensor, cache: Any, slots: torch.Tensor
    ) -> None:
        """keys, values: (rows, heads, dim)."""
        from vllm import _custom_ops

        pages = cache.view(cache.shape[0], cache.shape[1], 2 * SIZE, -1).chunk(2, dim=2)
        _custom_ops.cpu_attn_reshape_and_cache(keys, values, *pages, slots, self.isa)


class WrongWriter(RowWriter):
    """Loses the last element of every row."""

    def do_kv_cache_update(
        self, layer: Any, keys: torch.Tensor, values: torch.Tensor, cache: Any, slots: torch.Tensor
    ) -> None:
        """keys, values: (rows, heads, dim)."""
        super().do_kv_cache_update(layer, keys[..., :-1], values, cache[..., 1:], slots)


def _cache(layout: str, dtype: torch.dtype) -> torch.Tensor:
    logical = (BLOCKS, HEADS, SIZE, 2 * DIM)
    if layout == "NHD":
        return torch.zeros(BLOCKS, SIZE, HEADS, 2 * DIM, dtype=dtype).transpose(1, 2)
    if layout == "layers first":  # a layer's pages are not one after the other
        return torch.zeros(BLOCKS, 2, HEADS, SIZE, 2 * DIM, dtype=dtype)[:, 1]
    return torch.zeros(logical, dtype=dtype)


def _open(writer: Any, cache: torch.Tensor) -> Pages:
    layer = SimpleNamespace(
        impl=writer,
        kv_cache=cache,
        num_kv_heads=HEADS,
        head_size=DIM,
        isa=getattr(writer, "isa", ""),
    )
    return open_pages(layer, Library(torch.device("cpu"), num_threads=1), {})


KINDS = [
    ("HND", torch.float32, RowWriter(), RowPages),
    ("NHD", torch.bfloat16, RowWriter(), RowPages),
    ("layers first", torch.float16, RowWriter(), RowPages),
    ("HND", torch.float32, PackedWriter("vec"), PackedPages),
    ("HND", torch.bfloat16, PackedWriter("vec"), PackedPages),
    ("HND", torch.float32, PackedWriter("vec16"), PackedPages),
]
N, K = 150, 70
OLD = [5, 9, 2, 17, 11]
MOVES = {"in place": OLD[:3], "apart": [20, 3, 8], "over itself": [20, 11, 5]}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]} {kind[1]} {kind[3].__name__}")
@pytest.mark.parametrize("new", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("heads", [1, HEADS])
def test_kept_rows_move_bit_by_bit(kind: Any, new: list[int], heads: int) -> None:
    layout, dtype, writer, expected = kind
    pages = _open(writer, _cache(layout, dtype))
    assert type(pages) is expected
    keys, values = torch.randn(2, N, HEADS, DIM).to(dtype)
    others = [block for block in range(1, BLOCKS) if block not in OLD + new]
    at = torch.arange(N)
    pages.write(torch.tensor(OLD)[at // SIZE] * SIZE + at % SIZE, keys, values)
    untouched = pages.cache[others].clone()

    kept = torch.stack([torch.randperm(N)[:K].sort().values for _ in range(heads)])
    pages.move(Compaction(N, K, OLD, new), kept.int())

    rows = kept.expand(HEADS, -1).T[..., None].expand(-1, -1, DIM)
    found = pages.read(pages.table(new), torch.arange(K))
    assert torch.equal(found[0], keys.gather(0, rows))
    assert torch.equal(found[1], values.gather(0, rows))
    assert torch.equal(pages.cache[others], untouched)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]} {kind[1]} {kind[3].__name__}")
def test_scores_are_the_attention_of_the_window(kind: Any) -> None:
    layout, dtype, writer, _ = kind
    window, group = 16, 2
    pages = _open(writer, _cache(layout, dtype))
    keys, queries = torch.randn(N, HEADS, DIM).to(dtype), torch.randn(window, HEADS * group, DIM)
    at = torch.arange(N)
    pages.write(torch.tensor(OLD)[at // SIZE] * SIZE + at % SIZE, keys, keys)
    scores = torch.zeros(1, N)
    params = pages.library.params(budget=K, window=window)
    pages.score(params, queries.to(dtype), Compaction(N, K, OLD, OLD[:3]), scores)

    wide = keys.double().repeat_interleave(group, dim=1)
    logits = torch.einsum("whd,nhd->hwn", queries.to(dtype).double(), wide) * writer.scale
    future = torch.arange(N) > torch.arange(N - window, N)[:, None]
    expected = logits.masked_fill(future, float("-inf")).softmax(-1).sum((0, 1))[: N - window]
    # Sums of 6 * 16 probabilities in f32; bf16 kernels round their products.
    limit = 2e-2 if dtype is torch.bfloat16 else 1e-4
    assert torch.allclose(scores[0, : N - window].double(), expected, rtol=limit, atol=limit)


def test_pages_that_do_not_return_what_was_written_are_refused() -> None:
    with pytest.raises(PagesError, match="WrongWriter"):
        _open(WrongWriter(), _cache("NHD", torch.float32))


def test_a_cache_of_another_shape_is_refused() -> None:
    with pytest.raises(PagesError, match=r"Expected a KV cache .* but found \(4, 32, 8\)"):
        _open(RowWriter(), torch.zeros(4, 32, 8))
