"""Finds out how a backend lays out its pages, by writing to the null block and looking."""

from __future__ import annotations

from typing import Any

import torch

from .native import Library
from .pages import PackedPages, Pages, PagesError, RowPages

# Small integers that every dtype of a cache holds exactly: digits of an element's number.
BASE = 128


def open_pages(layer: Any, library: Library, orders: dict[Any, torch.Tensor]) -> Pages:
    """The pages of a layer, after random rows made the round trip through them.

    orders: what was learned so far, by layout; layers of one kind are packed alike.

    Raises PagesError where neither kind of page returns what was written.
    """
    cache, width = layer.kv_cache, 2 * layer.head_size
    expected = f"(num_blocks, {layer.num_kv_heads}, block_size, {width})"
    if cache.dim() != 4 or (cache.shape[1], cache.shape[3]) != (layer.num_kv_heads, width):
        raise PagesError(f"Expected a KV cache {expected} but found {tuple(cache.shape)}")
    try:
        rows: Pages = RowPages(layer, library)
        if _returns(rows):
            return rows
        if cache.is_contiguous():
            kind = (type(layer.impl), getattr(layer, "isa", None), tuple(cache.shape), cache.dtype)
            if kind not in orders:
                orders[kind] = _learn(rows)
            packed = PackedPages(layer, library, orders[kind])
            if _returns(packed):
                return packed
    finally:
        cache[0].zero_()
    raise PagesError(
        f"Expected pages {expected} whose rows lie in one piece, or are packed block by block, but "
        f"{type(layer.impl).__name__} writes them otherwise"
    )


def _returns(pages: Pages) -> bool:
    """Whether random rows of a whole block come back bit by bit."""
    shape = (pages.block_size, pages.num_kv_heads, pages.head_dim)
    cache = pages.cache
    slots = torch.arange(pages.block_size, device=cache.device)
    keys = torch.randn(shape, dtype=torch.float32, device=cache.device).to(cache.dtype)
    values = torch.randn(shape, dtype=torch.float32, device=cache.device).to(cache.dtype)
    pages.write(slots, keys, values)
    found = pages.read(pages.table([0]), slots)
    return torch.equal(found[0], keys) and torch.equal(found[1], values)


def _learn(pages: Pages) -> torch.Tensor:
    """Where the backend puts each element: i64 (2, block_size * head_dim), by its place in a block.

    Every element gets a number, which is written digit by digit and read where it ended up.
    """
    size, heads, dim = pages.block_size, pages.num_kv_heads, pages.head_dim
    count, cache = size * dim, pages.cache
    numbers = torch.arange(2 * count, device=cache.device).view(2, size, 1, dim)
    slots = torch.arange(size, device=cache.device)
    found = torch.zeros(2 * count, dtype=torch.long, device=cache.device)
    weight = 1
    while weight < 2 * count:
        digits = (numbers // weight % BASE).expand(2, size, heads, dim).to(cache.dtype)
        pages.write(slots, digits[0], digits[1])
        found += cache[0, 0].reshape(-1).long() * weight
        weight *= BASE
    order = torch.full_like(found, -1)
    order[found.clamp(0, 2 * count - 1)] = torch.arange(2 * count, device=cache.device)
    if (order < 0).any():
        raise PagesError(
            f"Expected {type(pages.layer.impl).__name__} to write each element of a row once but "
            "found some missing"
        )
    return order.view(2, count)
