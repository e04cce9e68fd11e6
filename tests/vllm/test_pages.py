"""Pages: rows in one piece, as CUDA backends have them, and packed, as the CPU's has them."""

from __future__ import annotations

import itertools
import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from chunkkv_vllm import native, structs
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


def _cache(layout: str, dtype: torch.dtype, device: str) -> torch.Tensor:
    options = {"dtype": dtype, "device": "cuda" if device == "cuda" else "cpu"}
    if layout == "NHD":
        return torch.zeros(BLOCKS, SIZE, HEADS, 2 * DIM, **options).transpose(1, 2)
    if layout == "layers first":  # a layer's pages are not one after the other
        return torch.zeros(BLOCKS, 2, HEADS, SIZE, 2 * DIM, **options)[:, 1]
    return torch.zeros(BLOCKS, HEADS, SIZE, 2 * DIM, **options)


def _open(writer: Any, cache: torch.Tensor, device: str) -> Pages:
    layer = SimpleNamespace(
        impl=writer,
        kv_cache=cache,
        num_kv_heads=HEADS,
        head_size=DIM,
        isa=getattr(writer, "isa", ""),
    )
    library = Library(torch.device("cpu" if device == "cpu" else "cuda"), num_threads=1)
    return open_pages(layer, library, {})


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """cpu, cuda, or queued: a context of CUDA whose library computes on the CPU."""
    if request.param == "queued":
        monkeypatch.setattr(native, "device_of", lambda tensor: structs.CUDA)
        stream = SimpleNamespace(cuda_stream=0)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    return request.param


ROWS = [
    ("HND", torch.float32, RowWriter(), RowPages),
    ("NHD", torch.bfloat16, RowWriter(), RowPages),
    ("layers first", torch.float16, RowWriter(), RowPages),
]
PACKED = [
    ("HND", torch.float32, PackedWriter("vec"), PackedPages),
    ("HND", torch.bfloat16, PackedWriter("vec"), PackedPages),
    ("HND", torch.float32, PackedWriter("vec16"), PackedPages),
]
DEVICES = ["cpu"]
if "fake" in os.environ.get("CHUNKKV_CUDA_LIBRARY", ""):
    DEVICES.append("queued")
elif torch.cuda.is_available():
    DEVICES.append("cuda")
KINDS = pytest.mark.parametrize(
    ("kind", "device"),
    [*itertools.product(ROWS, DEVICES), *((kind, "cpu") for kind in PACKED)],
    ids=lambda value: value if isinstance(value, str) else f"{value[0]} {value[1]}",
    indirect=["device"],
)
N, K = 150, 70
OLD = [5, 9, 2, 17, 11]


def _slots(pages: Pages) -> torch.Tensor:
    """Slots of the rows of a request that has the blocks OLD."""
    at = torch.arange(N, device=pages.cache.device)
    return torch.tensor(OLD, device=at.device)[at // SIZE] * SIZE + at % SIZE


MOVES = {"in place": OLD[:3], "apart": [20, 3, 8], "over itself": [20, 11, 5]}


@KINDS
@pytest.mark.parametrize("new", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("heads", [1, HEADS])
def test_kept_rows_move_bit_by_bit(kind: Any, new: list[int], heads: int, device: str) -> None:
    layout, dtype, writer, expected = kind
    pages = _open(writer, _cache(layout, dtype, device), device)
    assert type(pages) is expected
    keys, values = torch.randn(2, N, HEADS, DIM).to(pages.cache)
    others = [block for block in range(1, BLOCKS) if block not in OLD + new]
    pages.write(_slots(pages), keys, values)
    untouched = pages.cache[others].clone()

    kept = torch.stack([torch.randperm(N)[:K].sort().values for _ in range(heads)])
    kept = kept.to(pages.cache.device)
    pages.move(Compaction(N, K, OLD, new), kept.int())
    pages.library.finish()

    rows = kept.expand(HEADS, -1).T[..., None].expand(-1, -1, DIM)
    found = pages.read(pages.table(new), torch.arange(K, device=kept.device))
    assert torch.equal(found[0], keys.gather(0, rows))
    assert torch.equal(found[1], values.gather(0, rows))
    assert torch.equal(pages.cache[others], untouched)


@KINDS
def test_scores_are_the_attention_of_the_window(kind: Any, device: str) -> None:
    layout, dtype, writer, _ = kind
    window, group = 16, 2
    pages = _open(writer, _cache(layout, dtype, device), device)
    keys = torch.randn(N, HEADS, DIM).to(pages.cache)
    queries = torch.randn(window, HEADS * group, DIM).to(pages.cache)
    pages.write(_slots(pages), keys, keys)
    scores = torch.zeros(1, N, device=keys.device)
    params = pages.library.params(budget=K, window=window)
    pages.score(params, queries, Compaction(N, K, OLD, OLD[:3]), scores)
    pages.library.finish()
    if isinstance(pages, PackedPages):  # a copy of all keys: not one of each layer at once
        assert pages._unpacked.numel() == 0
    scores, keys, queries = scores.cpu(), keys.cpu(), queries.cpu()

    wide = keys.double().repeat_interleave(group, dim=1)
    logits = torch.einsum("whd,nhd->hwn", queries.double(), wide) * writer.scale
    future = torch.arange(N) > torch.arange(N - window, N)[:, None]
    expected = logits.masked_fill(future, float("-inf")).softmax(-1).sum((0, 1))[: N - window]
    # Sums of 6 * 16 probabilities in f32; bf16 kernels round their products.
    limit = 2e-2 if dtype is torch.bfloat16 else 1e-4
    assert torch.allclose(scores[0, : N - window].double(), expected, rtol=limit, atol=limit)


def test_pages_that_do_not_return_what_was_written_are_refused() -> None:
    with pytest.raises(PagesError, match="WrongWriter"):
        _open(WrongWriter(), _cache("NHD", torch.float32, "cpu"), "cpu")


def test_a_cache_of_another_shape_is_refused() -> None:
    with pytest.raises(PagesError, match=r"Expected a KV cache .* but found \(4, 32, 8\)"):
        _open(RowWriter(), torch.zeros(4, 32, 8), "cpu")
