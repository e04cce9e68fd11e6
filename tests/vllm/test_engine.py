"""The real engine, one request at a time: which rows it attends to, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import pytest

import reference
from conftest import Prompts, Run, plugin

TOKENS = 48
BLOCK = 32


def _freed(n: int, k: int) -> int:
    return ceil(n / BLOCK) - ceil(k / BLOCK)


@pytest.fixture(scope="module")
def answers(run: Run, model: Path, prompts: Prompts) -> Callable[..., dict]:
    """Answers of an engine with these settings, to prompts of these lengths."""

    def ask(
        lengths: list[int],
        extras: Any = None,
        v2: bool = False,
        options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        engine = {"model": str(model)} | (options or {})
        engine |= plugin(record=True, **settings) if settings else {}
        job = {"engine": engine, "prompts": prompts(*lengths), "tokens": TOKENS, "extras": extras}
        return run("single", job, {"CHUNKKV_TEST_RUNNER": "v2"} if v2 else None)

    return ask


def test_answers_are_those_of_transformers_with_the_same_rows(
    answers: Callable[..., dict], model: Path, prompts: Prompts
) -> None:
    # 530: the window's queries come in two chunks of the prefill. 200: budget of its own.
    lengths, kept = [530, 420, 200, 300], [265, 210, 80]
    extras = [None, None, {"budget": 80}, {"off": True}]
    result = answers(lengths, extras, keep=0.5)
    assert [[len(head) for head in layers[0]] for layers in result["kept"]] == [[k] for k in kept]
    rows = [*result["kept"], None]
    for prompt, output, layers in zip(prompts(*lengths), result["outputs"], rows, strict=True):
        assert output == reference.greedy(model, prompt, TOKENS, layers)
    dropped = sum(n - k for n, k in zip(lengths, kept, strict=False))
    freed = sum(_freed(n, k) for n, k in zip(lengths, kept, strict=False))
    assert result["tally"] == {"requests": 3, "dropped": dropped, "freed": freed}
    assert result["free"] == result["free_before"]
    assert "prompts compressed, " in result["log"]


def test_the_v2_runner_answers_the_same(
    answers: Callable[..., dict], model: Path, prompts: Prompts
) -> None:
    result = answers([300], v2=True, keep=0.5)
    (layers,), (output,) = result["kept"], result["outputs"]
    assert output == reference.greedy(model, *prompts(300), TOKENS, layers)
    assert result["tally"] == {"requests": 1, "dropped": 150, "freed": _freed(300, 150)}
    assert "V2" in result["log"]


def test_layers_can_share_indices_and_heads_can_have_their_own(
    answers: Callable[..., dict], model: Path, prompts: Prompts
) -> None:
    (prompt,) = prompts(400)
    # Without prefix caching rows move in place.
    in_place = {"enable_prefix_caching": False}
    shared = answers([400], options=in_place, keep=0.3, reuse=3)
    assert shared["over_itself"] == 1
    (groups,) = shared["kept"]
    assert len(groups) == 10
    rows = [groups[layer // 3] for layer in range(30)]
    assert shared["outputs"] == [reference.greedy(model, prompt, TOKENS, rows)]

    heads = answers([400], keep=0.3, method="snapkv")
    (layers,) = heads["kept"]
    assert {len(layer) for layer in layers} == {3}
    assert heads["outputs"] == [reference.greedy(model, prompt, TOKENS, layers)]


def test_moving_every_row_changes_nothing(answers: Callable[..., dict]) -> None:
    lengths = [500, 300]
    stock = answers(lengths)
    moved = answers(lengths, keep=1, min_freed_blocks=0)
    assert moved["outputs"] == stock["outputs"]
    assert moved["tally"] == {"requests": 2, "dropped": 0, "freed": 0}


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_surprise_costs_a_request_and_not_the_engine(
    run: Run, model: Path, prompts: Prompts, asynchronous: bool
) -> None:
    engine = {"model": str(model), "async_scheduling": asynchronous}
    engine |= plugin(keep=0.5, record=True)
    # The second one stays as it is, whatever happens to the first.
    job = {"engine": engine, "prompts": prompts(300, 100), "tokens": TOKENS}
    result = run("surprise", job)
    unscored, unmoved, strict, well = result["rounds"]
    prompt, other = prompts(300, 100)
    newest = [[*range(4), *range(300 - 146, 300)]]
    assert result["kept"][:2] == [[newest] * 30, result["kept"][2]]
    assert unscored["outputs"][0] == reference.greedy(model, prompt, TOKENS, [newest] * 30)
    assert well["outputs"][0] == reference.greedy(model, prompt, TOKENS, result["kept"][2])
    # The prompt's own token is right; those after it would not be.
    first = reference.greedy(model, prompt, 1, None)
    for failed in (unmoved, strict):
        assert (failed["outputs"][0], failed["reasons"]) == (first, ["error", "length"])
    expected = reference.greedy(model, other, TOKENS, None)
    for each in result["rounds"]:
        assert each["outputs"][1] == expected
        assert each["free"] == result["blocks"] - 1
    for line, times in {
        "could not be scored: Expected luck": 2,
        "keeps its first and newest": 1,
        "could not be compacted\n": 4,  # the worker says why, the scheduler what follows
        "ends with an error": 2,
    }.items():
        assert result["log"].count(line) == times, line
