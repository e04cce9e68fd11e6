"""The real engine under load: prefix caching on, a pool that is too small, preemptions, aborts."""

from __future__ import annotations

from pathlib import Path

from conftest import Prompts, Run, plugin


def test_six_at_once_answer_as_each_alone(run: Run, model: Path, prompts: Prompts) -> None:
    lengths = (600, 450, 130, 640, 380, 520)
    engine = {"model": str(model), "num_gpu_blocks_override": 46} | plugin(keep=0.5)
    result = run("together", {"engine": engine, "prompts": prompts(*lengths), "tokens": 80})
    assert result["batch"] == result["alone"]
    # The pool was full, someone was preempted and resumed, and fresh blocks ran out.
    assert result["least_free"] == 0
    assert result["preemptions"] > 0
    assert result["over_itself"] > 0
    assert result["free"] == result["blocks"] - 1


def test_three_at_once_answer_as_each_alone_on_the_v2_runner(
    run: Run, model: Path, prompts: Prompts
) -> None:
    # Small: every step of Triton's interpreter takes its time.
    size = {"num_gpu_blocks_override": 17, "max_model_len": 512}
    engine = {"model": str(model)} | size | plugin(keep=0.5)
    job = {"engine": engine, "prompts": prompts(250, 140, 280), "tokens": 40}
    result = run("together", job, {"CHUNKKV_TEST_RUNNER": "v2"})
    assert result["batch"] == result["alone"]
    assert result["most_running"] > 1
    assert result["free"] == result["blocks"] - 1


def test_after_aborts_and_preemptions_every_block_is_free(
    run: Run, model: Path, prompts: Prompts
) -> None:
    pieces = prompts(210, 300, 130, 400)
    pieces.append(pieces[3][:200] + pieces[1][:100])  # a prefix that two share
    extras = [None, None, {"off": True}, {"keep": 0.3}, {"budget": 100}, {"keep": "half"}]
    job = {
        "engine": {"model": str(model), "num_gpu_blocks_override": 36} | plugin(keep=0.5),
        "prompts": pieces,
        "extras": extras,
        "requests": 40,
        "parallel": 12,
        "tokens": 120,
        "abort": 0.05,
        "seed": 7,
    }
    result = run("churn", job)
    assert result["finished"] + result["aborted"] == 40
    assert result["aborted"] > 0
    assert result["preemptions"] > 0
    assert result["compressed"] > 0
    assert result["held"] == 0
    assert result["free"] == result["free_before"] == result["blocks"] - 1
    assert result["left"] == [0] * 6
    assert "goes on uncompressed: Expected keep to be a number" in result["log"]
