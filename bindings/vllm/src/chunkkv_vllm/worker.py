"""--worker-cls chunkkv_vllm.Worker: vLLM's worker on CPU or CUDA, with a runner that compacts."""

from __future__ import annotations

from typing import Any

from vllm.platforms import current_platform

from . import refusals
from .compactor import Compactor
from .runner_v1 import CompactingRunnerV1
from .runner_v2 import CompactingRunnerV2
from .settings import engine_settings

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as _Worker
elif current_platform.is_cuda():
    from vllm.v1.worker.gpu_worker import Worker as _Worker
else:
    raise refusals.UnsupportedError(
        f"chunkkv: expected a CPU or CUDA platform but found {current_platform.device_name}"
    )


class Worker(_Worker):
    """A worker whose model runner moves rows after the steps that end prompts."""

    def init_device(self) -> None:
        """First of all, before the model is loaded: whether this can work."""
        refusals.check_version()
        refusals.check_classes(self.vllm_config)
        refusals.check_config(self.vllm_config)
        settings = engine_settings(self.vllm_config.additional_config)
        super().init_device()
        from vllm.distributed import get_tp_group

        runner = self.model_runner
        mixin = CompactingRunnerV2 if self.use_v2_model_runner else CompactingRunnerV1
        base = type(runner)
        runner.__class__ = type(f"Compacting{base.__name__}", (mixin, base), {})
        runner.chunkkv_init(Compactor(settings, self.device, get_tp_group()))

    def chunkkv_kept(self) -> dict[str, Any]:
        """Kept indices by request, layer and head, if settings say record; for collective_rpc."""
        return self.model_runner.chunkkv.kept
