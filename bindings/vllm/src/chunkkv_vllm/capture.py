"""The queries of the observation window, seen where the attention backend gets them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .plan import StepPlan


class QueryCapture:
    """Keeps, by request and layer, the post-RoPE queries of the prompt's last `window` tokens.

    The window may come in several chunks. Outside the steps that compute a part of it, a layer's
    forward costs one more look at an empty list.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        # Of this step: request, first row in the batch, rows, first row of the window.
        self._rows: list[tuple[str, int, int, int]] = []
        self._queries: dict[str, dict[int, torch.Tensor]] = {}
        self._seen: dict[str, int] = {}

    def attach(self, layer: Any, index: int) -> None:
        """Wraps the forward of one layer's backend: an attribute of the instance, no class."""
        forward = layer.impl.forward

        def capturing(layer: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._rows:
                self._keep(index, query)
            return forward(layer, query, *args, **kwargs)

        layer.impl.forward = capturing

    def _keep(self, index: int, query: torch.Tensor) -> None:
        """query: (num_tokens, num_q_heads, head_dim), all requests of the step."""
        for request_id, start, rows, at in self._rows:
            layers = self._queries[request_id]
            if index not in layers:
                layers[index] = query.new_zeros((self._window, *query.shape[1:]))
            layers[index][at : at + rows] = query[start : start + rows]

    def begin(self, plan: StepPlan | None, first_row: Callable[[str], int]) -> None:
        """Before a step's forward; first_row says where a request begins in the batch."""
        self._rows = []
        for request_id, capture in (plan.captures if plan else {}).items():
            if capture.at == 0 or request_id not in self._queries:
                self._queries[request_id], self._seen[request_id] = {}, 0
            self._seen[request_id] += capture.rows
            start = first_row(request_id) + capture.skip
            self._rows.append((request_id, start, capture.rows, capture.at))

    @property
    def active(self) -> bool:
        """Whether this step's queries are needed."""
        return bool(self._rows)

    def end(self) -> None:
        """After a step's forward."""
        self._rows = []

    def take(self, request_id: str) -> dict[int, torch.Tensor]:
        """The window's queries by layer, (window, num_q_heads, head_dim); none if incomplete."""
        seen = self._seen.pop(request_id, 0)
        queries = self._queries.pop(request_id, {})
        return queries if seen == self._window else {}

    def forget(self, request_id: str) -> None:
        """The request is gone, or begins anew."""
        self._seen.pop(request_id, None)
        self._queries.pop(request_id, None)
