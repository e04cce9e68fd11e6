"""Settings of the engine and of a request."""

from __future__ import annotations

from typing import Any

import pytest

from chunkkv_vllm.settings import (
    DEFAULT_KEEP,
    SettingsError,
    engine_settings,
    request_settings,
)


def test_without_settings_a_fifth_is_kept() -> None:
    for nothing in (None, {}, {"chunkkv": {}}, {"other": 1}):
        assert engine_settings(nothing).keep == DEFAULT_KEEP


def test_a_budget_takes_the_place_of_keep() -> None:
    settings = engine_settings({"chunkkv": {"budget": 400}})
    assert (settings.keep, settings.budget) == (None, 400)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"keep": 0}, r"keep to be a number in \(0, 1\] but found 0"),
        ({"keep": 1.5}, "1.5"),
        ({"keep": True}, "True"),
        ({"keep": float("nan")}, "nan"),
        ({"keep": 0.5, "budget": 3}, "keep or budget but found both"),
        ({"window": 65}, r"window to be a whole number in 1\.\.64 but found 65"),
        ({"window": 32.0}, "32.0"),
        ({"pool_size": 4}, "pool_size to be odd but found 4"),
        ({"method": "best"}, "one of .* but found 'best'"),
        ({"min_tokens": 32}, "min_tokens to be more than window 32 but found 32"),
        ({"kept": 0.5}, r"found \['kept'\]"),
        ([], r"an object but found \[\]"),
    ],
)
def test_mistakes_are_named(values: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        engine_settings({"chunkkv": values})


@pytest.mark.parametrize(
    ("values", "keep", "budget", "off"),
    [
        (None, 0.5, None, False),
        ({"keep": 0.1}, 0.1, None, False),
        ({"budget": 100}, None, 100, False),
        ({"off": True}, 0.5, None, True),
        ("off", 0.5, None, True),
        ('{"budget": 64}', None, 64, False),
    ],
)
def test_a_request_has_its_own(
    values: Any, keep: float | None, budget: int | None, off: bool
) -> None:
    engine = engine_settings({"chunkkv": {"keep": 0.5, "chunk_size": 7}})
    settings = request_settings(engine, {"chunkkv": values, "other": 1})
    assert (settings.keep, settings.budget, settings.off) == (keep, budget, off)
    assert settings.chunk_size == 7


def test_a_request_can_turn_on_what_the_engine_has_off() -> None:
    engine = engine_settings({"chunkkv": {"off": True}})
    assert request_settings(engine, None).off
    assert not request_settings(engine, {"chunkkv": {"keep": 0.5}}).off


@pytest.mark.parametrize("values", [{"keep": "x"}, {"window": 3}, "on", 3, {"keep": None, "a": 1}])
def test_mistakes_of_a_request_are_named(values: Any) -> None:
    with pytest.raises(SettingsError, match="Expected .* but found"):
        request_settings(engine_settings(None), {"chunkkv": values})


@pytest.mark.parametrize(
    "values", ["[" * 2000, "[" * 900 + "]" * 900, '{"keep":' + "[" * 900 + "]" * 900 + "}"]
)
def test_deep_nesting_is_a_wrong_value_and_no_other_error(values: str) -> None:
    engine = engine_settings({})

    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            request_settings(engine, {"chunkkv": values})

    for levels in (0, 300):  # the engine's own frames count
        with pytest.raises(SettingsError):
            deeper(levels)


def test_a_long_wrong_value_is_not_quoted_whole() -> None:
    with pytest.raises(SettingsError) as found:
        request_settings(engine_settings({}), {"chunkkv": "x" * 100_000})
    assert len(str(found.value)) < 400
