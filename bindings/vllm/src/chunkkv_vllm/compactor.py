"""What a worker does after the step that ends a prompt: score, sum over ranks, select, move."""

from __future__ import annotations

from typing import Any

import torch

from . import refusals
from .capture import QueryCapture
from .layout import open_pages
from .log import logger
from .native import Library, NativeError
from .pages import Pages
from .plan import Compaction, StepPlan
from .settings import Settings
from .structs import METHODS, Params


class Compactor:
    """The layers of one worker: their pages and the queries seen there."""

    def __init__(self, settings: Settings, device: torch.device, tensor_parallel: Any) -> None:
        """tensor_parallel: vLLM's group of ranks that share the heads."""
        self.settings = settings
        self.capture = QueryCapture(settings.window)
        self.library = Library(device, settings.library, settings.threads)
        self.kept: dict[str, list[list[list[int]]]] = {}  # request, layer, head; if recorded
        self._ranks = tensor_parallel
        self._device = device
        self._layers: dict[str, Any] = {}
        self._pages: list[Pages] = []

    def attach(self, layers: dict[str, Any]) -> None:
        """The attention layers, when the model is loaded."""
        self._layers = layers
        for index, (name, layer) in enumerate(layers.items()):
            refusals.check_layer(name, layer)
            # Layers that take another's indices need no queries.
            if index % self.settings.reuse == 0:
                self.capture.attach(layer, index)

    def open(self) -> None:
        """Their pages, when the cache is there."""
        orders: dict[Any, torch.Tensor] = {}
        self._pages = [open_pages(layer, self.library, orders) for layer in self._layers.values()]
        kinds = sorted({type(pages).__name__ for pages in self._pages})
        logger.info(
            "chunkkv: libchunkkv %s on %s, %d layers (%s), %s",
            self.library.version,
            self._device,
            len(self._pages),
            ", ".join(kinds),
            self.settings,
        )

    def compact(self, step: StepPlan) -> list[str]:
        """After the forward: the compactions of this step, in the order of the plan.

        Returns the requests whose rows are lost, in this rank or in another: their answers would be
        wrong from here on.
        """
        failed = [not self._compact(*each) for each in step.compactions.items()]
        if self._ranks.world_size > 1:
            counts = torch.tensor(failed, dtype=torch.float32, device=self._device)
            failed = self._ranks.all_reduce(counts).tolist()
        return [request for request, one in zip(step.compactions, failed, strict=True) if one]

    def _compact(self, request_id: str, compaction: Compaction) -> bool:
        """One compaction; whether all rows are where they belong."""
        try:
            kept = self._select(request_id, compaction, self._params(compaction.k))
            if self.settings.record:
                self.kept[request_id] = kept.tolist()
            for index, pages in enumerate(self._pages):
                pages.move(compaction, kept[index // self.settings.reuse].contiguous())
            self.library.finish()  # what a GPU found belongs to this request
        except Exception:  # whatever it is, the other requests go on
            logger.exception("chunkkv: request %s could not be compacted", request_id)
            return False
        return True

    def _params(self, budget: int) -> Params:
        settings = self.settings
        return self.library.params(
            method=METHODS[settings.method],
            budget=budget,
            window=settings.window,
            chunk_size=settings.chunk_size,
            pool_size=settings.pool_size,
            num_sinks=settings.num_sinks,
        )

    def _select(self, request_id: str, compaction: Compaction, params: Params) -> torch.Tensor:
        """Kept indices of the selecting layers, i32 (layers, heads, k).

        The blocks are given back already, so k rows it is: where scores cannot be had, the first
        and the newest tokens stay, unless settings are strict.
        """
        pages = self._pages[:: self.settings.reuse]
        heads = self.library.kept_heads(params, pages[0].num_kv_heads)
        scores = self._scores(request_id, compaction, params)
        try:
            if not torch.isfinite(scores).all():
                raise NativeError("Expected finite token scores but found NaN or infinity")
            kept = self.library.select(params, scores, heads, compaction.k)
            self.library.finish()
            return kept
        except Exception as error:
            if self.settings.strict:
                raise
            logger.warning(
                "chunkkv: request %s keeps its first and newest tokens: %s", request_id, error
            )
            sinks = min(self.settings.num_sinks, compaction.k - 1)
            newest = compaction.n - compaction.k + sinks
            first = torch.arange(sinks, dtype=torch.int32, device=self._device)
            rest = torch.arange(newest, compaction.n, dtype=torch.int32, device=self._device)
            return torch.cat((first, rest)).expand(len(pages), 1, -1)

    def _scores(self, request_id: str, compaction: Compaction, params: Params) -> torch.Tensor:
        """Token scores f32 (layers, heads, n), summed over the ranks where heads are.

        A rank that fails takes part with NaN: the others wait for it, and then all do the same.
        """
        pages = self._pages[:: self.settings.reuse]
        heads = self.library.score_heads(params, pages[0].num_kv_heads)
        shape = (len(pages), heads or 1, compaction.n)
        scores = torch.zeros(shape, dtype=torch.float32, device=self._device)
        queries = self.capture.take(request_id)
        if heads == 0:
            return scores
        try:
            if len(queries) != len(pages):
                raise NativeError(
                    f"Expected the queries of {len(pages)} layers but found {len(queries)}"
                )
            for index, layer in enumerate(pages):
                window = queries[index * self.settings.reuse]
                layer.score(params, window, compaction, scores[index])
            self.library.finish()
        except Exception as error:  # no rank may leave the others waiting
            logger.warning("chunkkv: request %s could not be scored: %s", request_id, error)
            scores.fill_(float("nan"))
        # Scores for each kv head belong to the rank that has it.
        if heads == 1 and self._ranks.world_size > 1 and self.settings.method == "chunkkv":
            scores = self._ranks.all_reduce(scores)
        return scores

    def forget(self, request_id: str) -> None:
        """The request is gone, or begins anew."""
        self.capture.forget(request_id)
