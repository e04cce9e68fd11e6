"""chunkkv for vLLM: after the prompt, the KV cache shrinks and its blocks return to the pool.

    vllm serve MODEL --scheduler-cls chunkkv_vllm.Scheduler --worker-cls chunkkv_vllm.Worker \
        --additional-config '{"chunkkv": {"keep": 0.3}}'

The two classes load vLLM only when they are asked for, so that the rest can be used without it.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Scheduler", "Worker"]


def __getattr__(name: str) -> Any:
    if name == "Scheduler":
        from .scheduler import Scheduler

        return Scheduler
    if name == "Worker":
        from .worker import Worker

        return Worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
