"""What the user asks for: --additional-config for the engine, extra_args for one request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .structs import METHODS

KEY = "chunkkv"


class SettingsError(ValueError):
    """A setting that is unknown or out of its range."""


@dataclass(frozen=True)
class Settings:
    """The engine's settings; `keep`, `budget` and `off` may differ from request to request.

    keep: fraction of the prompt's tokens that stays. budget: their number, instead of a fraction.
    method: chunkkv, snapkv or streaming_llm; full compresses nothing. chunk_size, window, reuse,
    pool_size, num_sinks: as in chunkkv.h. min_tokens: shorter prompts stay as they are.
    min_freed_blocks: so many blocks must come back, else the prompt stays as it is; 0 moves rows
    even where nothing is dropped, which shows that moving changes nothing. threads: of libchunkkv
    on the CPU; 0: one per core. library: the path of libchunkkv. strict: a prompt that cannot be
    scored ends its request with an error, instead of keeping its first and newest tokens. record:
    workers remember the indices that they kept, for tests.
    """

    keep: float | None = None
    budget: int | None = None
    off: bool = False
    method: str = "chunkkv"
    chunk_size: int = 10
    window: int = 32
    reuse: int = 1
    pool_size: int = 5
    num_sinks: int = 4
    min_tokens: int = 512
    min_freed_blocks: int = 1
    threads: int = 0
    library: str | None = None
    strict: bool = False
    record: bool = False


DEFAULT_KEEP = 0.2
PER_REQUEST = ("keep", "budget", "off")

_RANGES = {
    "budget": (1, 2**31 - 1),
    "chunk_size": (1, 2**31 - 1),
    "window": (1, 64),
    "reuse": (1, 2**31 - 1),
    "pool_size": (1, 2**31 - 1),
    "num_sinks": (0, 2**31 - 1),
    "min_tokens": (1, 2**31 - 1),
    "min_freed_blocks": (0, 2**31 - 1),
    "threads": (0, 4096),
}


def engine_settings(additional_config: object) -> Settings:
    """The settings in --additional-config; every mistake is an error."""
    values = additional_config.get(KEY, {}) if isinstance(additional_config, Mapping) else {}
    return _parse(values, Settings(), [field.name for field in fields(Settings)])


def request_settings(engine: Settings, extra_args: Mapping[str, Any] | None) -> Settings:
    """The engine's settings with those of one request.

    extra_args["chunkkv"] is {"keep": 0.2}, {"budget": 400} or {"off": true}; over HTTP, where
    vllm_xargs holds no objects, the same as JSON text, or "off".
    """
    values = (extra_args or {}).get(KEY)
    if values is None:
        return engine
    try:
        if isinstance(values, str):
            values = {"off": True} if values.strip() == "off" else _from_json(values)
        return _parse(values, engine, PER_REQUEST)
    except RecursionError:
        # Of lists in lists a thousand deep; it must not reach the engine, which would stop.
        raise SettingsError("Expected chunkkv to be plain values but found deep nesting") from None


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        shown = text if len(text) <= 200 else text[:200] + "..."
        raise SettingsError(f'Expected chunkkv to be JSON or "off" but found {shown!r}') from error


def _parse(values: object, base: Settings, known: tuple[str, ...] | list[str]) -> Settings:
    if not isinstance(values, Mapping):
        raise SettingsError(f"Expected chunkkv to be an object but found {values!r}")
    unknown = [name for name in values if name not in known]
    if unknown:
        raise SettingsError(f"Expected chunkkv's settings to be {known} but found {unknown}")
    found = {name: _checked(name, value) for name, value in values.items()}
    if found.get("keep") is not None and found.get("budget") is not None:
        raise SettingsError("Expected keep or budget but found both")
    # The one that a request names takes the place of the other that the engine has.
    if found.get("keep") is not None:
        found["budget"] = None
    elif found.get("budget") is not None:
        found["keep"] = None
    if found and "off" not in found:
        found["off"] = False
    settings = replace(base, **found)
    if settings.keep is None and settings.budget is None:
        settings = replace(settings, keep=DEFAULT_KEEP)
    if settings.min_tokens <= settings.window:
        raise SettingsError(
            f"Expected min_tokens to be more than window {settings.window} "
            f"but found {settings.min_tokens}"
        )
    return settings


def _checked(name: str, value: Any) -> Any:
    if value is None and name in ("keep", "budget", "library"):
        return None
    if name in ("off", "strict", "record"):
        _expect(isinstance(value, bool), name, "true or false", value)
    elif name == "keep":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        _expect(number and 0 < value <= 1, name, "a number in (0, 1]", value)
        return float(value)
    elif name == "method":
        _expect(isinstance(value, str) and value in METHODS, name, f"one of {[*METHODS]}", value)
    elif name == "library":
        _expect(isinstance(value, str), name, "a path", value)
    else:
        low, high = _RANGES[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        _expect(whole and low <= value <= high, name, f"a whole number in {low}..{high}", value)
        if name == "pool_size":
            _expect(value % 2 == 1, name, "odd", value)
    return value


def _expect(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise SettingsError(f"Expected {name} to be {expected} but found {value!r}")
