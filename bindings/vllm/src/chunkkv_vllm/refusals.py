"""What the plugin does not work with: found at start, and named."""

from __future__ import annotations

from typing import Any

import vllm

# Versions whose insides this package was run against. Others move what it reaches into.
KNOWN_VERSIONS = ("0.32.0",)
CACHE_DTYPES = ("auto", "float16", "bfloat16")


class UnsupportedError(RuntimeError):
    """This engine, or its configuration, cannot be compressed."""


def check_version() -> None:
    """Refuses a vLLM that this package was not run against."""
    found = str(vllm.__version__).split("+")[0]
    if found not in KNOWN_VERSIONS:
        raise UnsupportedError(
            f"chunkkv: expected vLLM {' or '.join(KNOWN_VERSIONS)} but found {vllm.__version__}: "
            "install one of these, or a chunkkv-vllm for yours"
        )


def check_config(config: Any) -> None:
    """Refuses configurations, from a VllmConfig alone."""
    parallel, model = config.parallel_config, config.model_config
    found = {
        "speculative decoding": config.speculative_config is not None,
        "KV connectors": config.kv_transfer_config is not None,
        "context parallelism": parallel.decode_context_parallel_size > 1
        or parallel.prefill_context_parallel_size > 1,
        "microbatches (DBO)": parallel.use_ubatching,
        "encoder-decoder models": model.is_encoder_decoder,
        "pooling models": model.runner_type == "pooling",
        "diffusion models": model.is_diffusion,
        "models without attention": model.is_attention_free,
        "models that see images both ways": model.is_mm_prefix_lm,
        "KV sharing fast prefill": config.cache_config.kv_sharing_fast_prefill,
        f"a KV cache of {config.cache_config.cache_dtype}": config.cache_config.cache_dtype
        not in CACHE_DTYPES,
    }
    _refuse([what for what, there in found.items() if there])


def check_classes(config: Any) -> None:
    """Refuses one class without the other: the scheduler decides and the worker moves."""
    scheduler, worker = config.scheduler_config.scheduler_cls, config.parallel_config.worker_cls
    names = {"--scheduler-cls": scheduler, "--worker-cls": worker}
    wrong = [f"{flag} {name}" for flag, name in names.items() if "chunkkv" not in str(name).lower()]
    if wrong:
        raise UnsupportedError(
            "chunkkv: expected both --scheduler-cls chunkkv_vllm.Scheduler and "
            f"--worker-cls chunkkv_vllm.Worker but found {' and '.join(wrong)}"
        )


def check_cache(kv_cache_config: Any) -> None:
    """Refuses KV caches that are not one group of plain full attention."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    groups = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
    names = [type(spec).__name__ for spec in groups]
    if len(groups) != 1:
        _refuse([f"more than one KV cache group, or none ({names})"])
    spec = groups[0]
    found = {
        f"a KV cache of {names[0]} (FullAttentionSpec is expected)": type(spec)
        is not FullAttentionSpec,
        "sliding windows": bool(getattr(spec, "sliding_window", None)),
        "chunked local attention": bool(getattr(spec, "attention_chunk_size", None)),
        "attention that is not causal": bool(getattr(spec, "non_causal", False)),
        "keys and values of different sizes": getattr(spec, "head_size_v", None)
        != getattr(spec, "head_size", None),
    }
    _refuse([what for what, there in found.items() if there])


def check_layer(name: str, layer: Any) -> None:
    """Refuses attention layers whose attention the scores would not be."""
    impl = layer.impl
    found = {
        "ALiBi": getattr(impl, "alibi_slopes", None) is not None,
        "attention sinks": getattr(impl, "sinks", None) is not None,
        "KV sharing between layers": bool(getattr(layer, "kv_sharing_target_layer_name", None)),
        f"attention of type {getattr(impl, 'attn_type', None)}": getattr(impl, "attn_type", None)
        not in (None, "decoder"),
        "an attention backend without do_kv_cache_update": not hasattr(impl, "do_kv_cache_update"),
    }
    _refuse([f"{what} (layer {name})" for what, there in found.items() if there])


def check_block_size(name: str, layer: Any, block_size: int) -> None:
    """Refuses attention kernels whose blocks are parts of those that the block manager counts."""
    found = layer.kv_cache.shape[2]
    if found != block_size:
        _refuse([f"blocks of {block_size} tokens that attention splits in {found} (layer {name})"])


def check_graphs(compilation: Any) -> None:
    """Refuses CUDA graphs of whole mixed batches: queries cannot be seen inside one."""
    from vllm.config import CUDAGraphMode

    mode = compilation.cudagraph_mode
    if mode is not None and mode.mixed_mode() == CUDAGraphMode.FULL:
        _refuse([f"cudagraph_mode {mode.name}, whose graphs hold mixed batches whole"])


def _refuse(found: list[str]) -> None:
    if found:
        raise UnsupportedError(
            f"chunkkv does not work with {'; '.join(found)}: leave that out, or start vLLM without "
            "--scheduler-cls and --worker-cls chunkkv_vllm"
        )
