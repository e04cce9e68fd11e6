"""What both model runners have in common."""

from __future__ import annotations

from typing import Any

import torch

from .compactor import Compactor
from .plan import Compaction, StepPlan, with_failures
from .refusals import check_block_size


class CompactingRunner:
    """Goes before one of vLLM's model runners."""

    chunkkv: Compactor

    def chunkkv_init(self, compactor: Compactor) -> None:
        """After the runner's own constructor."""
        self.chunkkv = compactor
        self._chunkkv_failed: list[str] = []  # in the step at hand

    def load_model(self, *args: Any, **kwargs: Any) -> Any:
        """The model, and then its attention layers."""
        result = super().load_model(*args, **kwargs)
        from vllm.model_executor.layers.attention import Attention

        context = self.vllm_config.compilation_config.static_forward_context
        self._chunkkv_layers = {
            name: layer for name, layer in context.items() if isinstance(layer, Attention)
        }
        self.chunkkv.attach(self._chunkkv_layers)
        return result

    def initialize_kv_cache(
        self, kv_cache_config: Any, is_profiling: bool = False, **kwargs: Any
    ) -> Any:
        """The cache, and then its layout."""
        result = super().initialize_kv_cache(kv_cache_config, is_profiling, **kwargs)
        if not is_profiling:
            spec = kv_cache_config.kv_cache_groups[0].kv_cache_spec
            for name, layer in self._chunkkv_layers.items():
                check_block_size(name, layer, spec.block_size)
            self.chunkkv.open()
        return result

    def chunkkv_after(self, step: StepPlan | None) -> None:
        """After a step's forward: rows move, and then block tables name their new places."""
        self.chunkkv.capture.end()
        if step is None or not step.compactions:
            return
        with torch.inference_mode():
            self._chunkkv_failed = self.chunkkv.compact(step)
        # Those that failed, too: until the scheduler hears of it, they are in the batch.
        for request_id, compaction in step.compactions.items():
            self.chunkkv_adopt(request_id, compaction)

    def sample_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """The step's output, on which the scheduler finds what failed."""
        output = super().sample_tokens(*args, **kwargs)
        failed, self._chunkkv_failed = self._chunkkv_failed, []
        return with_failures(output, failed)

    def chunkkv_adopt(self, request_id: str, compaction: Compaction) -> None:
        """The request's new block table and length."""
        raise NotImplementedError
