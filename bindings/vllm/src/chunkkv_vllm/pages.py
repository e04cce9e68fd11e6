"""One layer's KV cache pages, read and written row by row.

Logically a layer's cache is (num_blocks, num_kv_heads, block_size, 2 * head_dim). Where a row lies
in one piece, libchunkkv reads and moves it there. CPU backends pack a block's rows instead, each
instruction set in its own way: the order is learned at start from what the backend itself writes,
and rows go back through the backend. Either way random rows make the round trip first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch

from .native import Library, kv_view
from .plan import Compaction
from .structs import KvView, Params


class PagesError(RuntimeError):
    """The layout of the pages is unknown."""


class Pages(ABC):
    """The pages of one layer."""

    def __init__(self, layer: Any, library: Library) -> None:
        self.layer = layer
        self.library = library
        self.cache: torch.Tensor = layer.kv_cache
        self.block_size = self.cache.shape[2]
        self.num_kv_heads: int = layer.num_kv_heads
        self.head_dim: int = layer.head_size
        self.params: dict[str, float] = {
            "scale": float(layer.impl.scale),
            "logit_softcap": float(
                getattr(layer.impl, "logits_soft_cap", None)
                or getattr(layer.impl, "soft_cap", None)
                or 0
            ),
        }

    def score(
        self, params: Params, queries: torch.Tensor, compaction: Compaction, scores: torch.Tensor
    ) -> None:
        """queries (window, num_q_heads, head_dim) to scores f32 (heads, n)."""
        params.scale, params.logit_softcap = self.params["scale"], self.params["logit_softcap"]
        self.library.score(params, queries, self.keys(compaction), scores)

    def write(self, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Rows (rows, num_kv_heads, head_dim) to slots i64 (rows,), by the backend's own way."""
        self.layer.impl.do_kv_cache_update(
            self.layer, keys.contiguous(), values.contiguous(), self.cache, slots
        )

    @abstractmethod
    def keys(self, compaction: Compaction) -> KvView:
        """The keys of a request before it is compacted."""

    @abstractmethod
    def read(self, blocks: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (rows, num_kv_heads, head_dim) of row indices in a block table."""

    @abstractmethod
    def move(self, compaction: Compaction, kept: torch.Tensor) -> None:
        """Moves the rows kept i32 (heads, k), heads 1 or num_kv_heads, to their new blocks."""

    def table(self, blocks: list[int]) -> torch.Tensor:
        """A block table, i32 (blocks,), on the cache's device."""
        return torch.tensor(blocks, dtype=torch.int32, device=self.cache.device)


class RowPages(Pages):
    """Rows that lie in one piece: NHD, HND and fused K|V pages, by their strides."""

    def __init__(self, layer: Any, library: Library) -> None:
        super().__init__(layer, library)
        self._keys, self._values = self.cache.split(self.head_dim, dim=-1)
        # The tables of the compaction at hand: the library works on them after a call returns.
        self._old = self._new = self.table([])

    def keys(self, compaction: Compaction) -> KvView:
        self._old = self.table(compaction.old)
        return kv_view(self._keys, self._old, compaction.n)

    def read(self, blocks: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        block, offset = blocks[rows // self.block_size].long(), rows % self.block_size
        return self._keys[block, :, offset], self._values[block, :, offset]

    def move(self, compaction: Compaction, kept: torch.Tensor) -> None:
        self._old, self._new = self.table(compaction.old), self.table(compaction.new)
        apart = not set(compaction.old) & set(compaction.new)
        for pages in (self._keys, self._values):
            source = kv_view(pages, self._old, compaction.n)
            target = kv_view(pages, self._new, compaction.k)
            if compaction.in_place:
                self.library.compact(source, None, kept)
            elif apart:
                self.library.compact(source, target, kept)
            else:
                self._move_over_itself(pages, source, target, compaction.k, kept)

    def _move_over_itself(
        self, pages: torch.Tensor, source: KvView, target: KvView, k: int, kept: torch.Tensor
    ) -> None:
        """Some blocks are both read and written: by way of a copy."""
        copy = pages.new_empty((k, self.num_kv_heads, self.head_dim))
        self.library.compact(source, kv_view(copy), kept)
        every = torch.arange(k, dtype=torch.int32, device=pages.device)[None]
        self.library.compact(kv_view(copy), target, every)


class PackedPages(Pages):
    """Packed blocks: (num_kv_heads, 2 * block_size * head_dim) elements in a learned order."""

    def __init__(self, layer: Any, library: Library, order: torch.Tensor) -> None:
        """order: i64 (2, block_size * head_dim): where the elements of K and V lie in a block."""
        super().__init__(layer, library)
        self._order = order
        self._blocks = self.cache.view(self.cache.shape[0], self.cache.shape[1], -1)
        self._unpacked = self.cache.new_empty(0)

    def score(
        self, params: Params, queries: torch.Tensor, compaction: Compaction, scores: torch.Tensor
    ) -> None:
        """As without packing; the unpacked keys go before the next layer's come."""
        try:
            super().score(params, queries, compaction, scores)
        finally:
            self._unpacked = self.cache.new_empty(0)

    def keys(self, compaction: Compaction) -> KvView:
        self._unpacked = self._unpack(self.table(compaction.old), 0)[: compaction.n]
        return kv_view(self._unpacked)

    def _unpack(self, blocks: torch.Tensor, which: int) -> torch.Tensor:
        """All rows of these blocks: (len(blocks) * block_size, num_kv_heads, head_dim)."""
        rows = self._blocks[blocks.long()].index_select(-1, self._order[which])
        rows = rows.view(len(blocks), self.num_kv_heads, self.block_size, self.head_dim)
        return rows.transpose(1, 2).reshape(-1, self.num_kv_heads, self.head_dim)

    def _gather(self, blocks: torch.Tensor, rows: torch.Tensor, which: int) -> torch.Tensor:
        """Rows (k, num_kv_heads) of these blocks, no others: (k, num_kv_heads, head_dim)."""
        order = self._order[which].view(self.block_size, self.head_dim)
        heads = torch.arange(self.num_kv_heads, device=self.cache.device)[:, None]
        block = blocks.long()[rows // self.block_size][..., None]
        return self._blocks[block, heads, order[rows % self.block_size]]

    def read(self, blocks: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._unpack(blocks, 0)[rows], self._unpack(blocks, 1)[rows]

    def move(self, compaction: Compaction, kept: torch.Tensor) -> None:
        old, new = self.table(compaction.old), self.table(compaction.new).long()
        rows = kept.long().expand(self.num_kv_heads, -1).T  # (k, num_kv_heads)
        # Indexing copies: the blocks that are written may be among those that were read.
        keys, values = self._gather(old, rows, 0), self._gather(old, rows, 1)
        at = torch.arange(compaction.k, device=self.cache.device)
        self.write(
            new[at // self.block_size] * self.block_size + at % self.block_size, keys, values
        )
