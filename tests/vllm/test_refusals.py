"""What does not work is refused at start, and named: real configurations of vLLM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import vllm
from vllm.config import CUDAGraphMode
from vllm.engine.arg_utils import EngineArgs

from chunkkv_vllm import refusals
from chunkkv_vllm.refusals import UnsupportedError

CLASSES = {"scheduler_cls": "chunkkv_vllm.Scheduler", "worker_cls": "chunkkv_vllm.Worker"}


def _config(model: Path, **options: Any) -> Any:
    return EngineArgs(
        model=str(model), **(CLASSES | {"max_model_len": 1024} | options)
    ).create_engine_config()


def test_a_plain_configuration_passes(model: Path) -> None:
    config = _config(model)
    refusals.check_version()
    refusals.check_classes(config)
    refusals.check_config(config)


def test_prompts_with_positions_of_images_are_refused(model: Path) -> None:
    config = _config(model)
    object.__setattr__(config.model_config.model_arch_config, "is_mm_prefix_lm", True)
    with pytest.raises(UnsupportedError, match="models that see images both ways"):
        refusals.check_config(config)


def test_a_vllm_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.33.0")
    with pytest.raises(UnsupportedError, match=r"expected vLLM 0\.32\.0 but found 0\.33\.0"):
        refusals.check_version()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {
                "speculative_config": {
                    "method": "ngram",
                    "num_speculative_tokens": 2,
                    "prompt_lookup_max": 3,
                }
            },
            "speculative decoding",
        ),
        (
            {"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}},
            "KV connectors",
        ),
        ({"kv_cache_dtype": "fp8"}, "a KV cache of fp8"),
        ({"runner": "pooling"}, "pooling models"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_configurations_are_refused(model: Path, options: dict, says: str) -> None:
    with pytest.raises(
        UnsupportedError, match=f"chunkkv does not work with {says}: leave that out"
    ):
        refusals.check_config(_config(model, **options))


def test_context_parallelism_is_refused(model: Path) -> None:
    config = _config(model)
    # vLLM itself asks for more devices before it accepts this.
    config.parallel_config.decode_context_parallel_size = 2
    with pytest.raises(UnsupportedError, match="context parallelism"):
        refusals.check_config(config)


@pytest.mark.parametrize("left_out", CLASSES)
def test_one_class_without_the_other_is_refused(model: Path, left_out: str) -> None:
    config = _config(model)
    stock = {"scheduler_cls": config.scheduler_config, "worker_cls": config.parallel_config}
    setattr(stock[left_out], left_out, None)
    with pytest.raises(UnsupportedError, match=f"but found --{left_out.replace('_', '-')} None"):
        refusals.check_classes(config)


def _cache(*specs: Any) -> Any:
    return SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec) for spec in specs])


def test_caches_of_other_kinds_are_refused() -> None:
    from vllm.v1.kv_cache_interface import FullAttentionSpec, SlidingWindowSpec

    sizes = {"block_size": 32, "num_kv_heads": 2, "head_size": 64, "dtype": torch.float32}
    full, window = FullAttentionSpec(**sizes), SlidingWindowSpec(sliding_window=64, **sizes)
    refusals.check_cache(_cache(full))
    with pytest.raises(UnsupportedError, match="more than one KV cache group"):
        refusals.check_cache(_cache(full, window))
    with pytest.raises(UnsupportedError, match="SlidingWindowSpec"):
        refusals.check_cache(_cache(window))
    with pytest.raises(UnsupportedError, match="sliding windows"):
        refusals.check_cache(_cache(FullAttentionSpec(sliding_window=64, **sizes)))


@pytest.mark.parametrize(
    ("impl", "layer", "says"),
    [
        ({"alibi_slopes": torch.ones(2)}, {}, "ALiBi"),
        ({"sinks": torch.ones(2)}, {}, "attention sinks"),
        ({"attn_type": "encoder_decoder"}, {}, "attention of type encoder_decoder"),
        ({}, {"kv_sharing_target_layer_name": "layers.0"}, "KV sharing"),
    ],
)
def test_layers_of_other_kinds_are_refused(impl: dict, layer: dict, says: str) -> None:
    impl = {"attn_type": "decoder", "do_kv_cache_update": None} | impl
    with pytest.raises(UnsupportedError, match=f"{says}.*layer layers.3"):
        refusals.check_layer("layers.3", SimpleNamespace(impl=SimpleNamespace(**impl), **layer))


def test_the_engine_stops_before_the_model_is_loaded(model: Path) -> None:
    code = (
        "from vllm import LLM\n"
        f"LLM({str(model)!r}, enforce_eager=True, max_model_len=512, kv_cache_memory_bytes=1<<28,"
        f" additional_config={{'chunkkv': {{'keep': 7}}}}, **{CLASSES})"
    )
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300
    )
    assert process.returncode != 0
    assert "Expected keep to be a number in (0, 1] but found 7" in process.stderr
    assert "Starting to load model" not in process.stdout + process.stderr


def test_blocks_that_attention_splits_are_refused() -> None:
    layer = SimpleNamespace(kv_cache=torch.empty(4, 2, 64, 16))
    refusals.check_block_size("3", layer, 64)
    with pytest.raises(UnsupportedError, match=r"blocks of 128 tokens .* in 64 \(layer 3\)"):
        refusals.check_block_size("3", layer, 128)


@pytest.mark.parametrize("mode", ["NONE", "PIECEWISE", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"])
def test_graphs_of_decoding_alone_pass(mode: str) -> None:
    refusals.check_graphs(SimpleNamespace(cudagraph_mode=CUDAGraphMode[mode]))


def test_graphs_of_whole_mixed_batches_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="cudagraph_mode FULL, whose"):
        refusals.check_graphs(SimpleNamespace(cudagraph_mode=CUDAGraphMode.FULL))
