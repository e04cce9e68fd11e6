"""Lets vLLM's V2 model runner run on a CPU: Triton's interpreter, with a driver that says so."""

from __future__ import annotations

import os
from typing import Any


class _Target:
    backend, arch, warp_size = "cpu", 0, 1


class _Driver:
    @staticmethod
    def is_active() -> bool:
        return True

    def get_current_target(self) -> _Target:
        return _Target()

    def get_current_device(self) -> int:
        return 0

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        import torch

        return torch.cpu


class _Backend:
    driver, compiler = _Driver, None


def install() -> None:
    """Before vLLM is imported."""
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"
    import triton.backends

    triton.backends.backends["cpu"] = _Backend()
