"""What the tests share: the model, prompts from a real text, scenarios in processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("CHUNKKV_CACHE") or Path.home() / ".cache" / "chunkkv")
MODEL = CACHE / "models" / "SmolLM2-135M-Instruct-hf"
TEXT = ROOT / "bench" / "data" / "red_headed_league.txt"

Run = Callable[..., dict[str, Any]]
Prompts = Callable[..., list[list[int]]]


@pytest.fixture(scope="session")
def model() -> Path:
    """SmolLM2-135M as a Hugging Face folder."""
    if not MODEL.is_dir():
        pytest.fail(f"Expected the model at {MODEL} but found nothing: run bindings/vllm/setup.sh")
    return MODEL


@pytest.fixture(scope="session")
def prompts(model: Path) -> Prompts:
    """Token ids of pieces of the text: prompts(500, 300) are two prompts of these lengths."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(model)(TEXT.read_text()).input_ids

    def pieces(*lengths: int) -> list[list[int]]:
        return [ids[i * 157 : i * 157 + length] for i, length in enumerate(lengths)]

    return pieces


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a scenario of scenarios.py on an engine in a fresh process."""

    def scenario(
        name: str, job: dict[str, Any], environment: dict[str, str] | None = None
    ) -> dict[str, Any]:
        result = tmp_path_factory.mktemp(name) / "result.json"
        process = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("scenarios.py")), name, str(result)],
            input=json.dumps(job),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | (environment or {}),
            timeout=900,
        )
        if process.returncode or not result.exists():
            pytest.fail(f"{name} ended with {process.returncode}:\n{process.stdout[-6000:]}")
        return json.loads(result.read_text()) | {"log": process.stdout}

    return scenario


def plugin(**settings: Any) -> dict[str, Any]:
    """Engine options that load the plugin."""
    defaults = {"min_tokens": 128, "threads": 1}
    return {
        "scheduler_cls": "chunkkv_vllm.Scheduler",
        "worker_cls": "chunkkv_vllm.Worker",
        "additional_config": {"chunkkv": defaults | settings},
    }
