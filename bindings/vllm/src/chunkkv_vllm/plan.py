"""What scheduler and workers tell each other: attributes that survive pickling.

The scheduler's plan goes on SchedulerOutput, what a worker could not do on ModelRunnerOutput.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Any

from vllm.v1.outputs import AsyncModelRunnerOutput

ATTRIBUTE = "chunkkv"
FAILED = "chunkkv_failed"


@dataclass(frozen=True)
class RequestPlan:
    """What is to happen to one request: of the prompt's n tokens, k stay."""

    n: int
    k: int

    @property
    def dropped(self) -> int:
        """Tokens that go."""
        return self.n - self.k


@dataclass(frozen=True)
class Capture:
    """Queries that this step computes and the window needs.

    Of the request's rows in the batch, skip the first `skip` and take `rows`; they are the window's
    rows from `at` on.
    """

    skip: int
    rows: int
    at: int


@dataclass(frozen=True)
class Compaction:
    """After this step's forward: n rows in the blocks `old` become k rows in the blocks `new`."""

    n: int
    k: int
    old: list[int]
    new: list[int]

    @property
    def in_place(self) -> bool:
        """The rows stay in the first of their own blocks."""
        return self.new == self.old[: len(self.new)]


@dataclass
class StepPlan:
    """All of it for one step, by request."""

    captures: dict[str, Capture] = field(default_factory=dict)
    compactions: dict[str, Compaction] = field(default_factory=dict)


def attach(scheduler_output: Any, plan: StepPlan) -> None:
    """Puts the plan on a SchedulerOutput, if there is anything in it."""
    if plan.captures or plan.compactions:
        setattr(scheduler_output, ATTRIBUTE, plan)


def of(scheduler_output: Any) -> StepPlan | None:
    """The plan on a SchedulerOutput."""
    return getattr(scheduler_output, ATTRIBUTE, None)


class _AsyncFailures(AsyncModelRunnerOutput):
    """An output that is still on its way, and what failed in its step."""

    def __init__(self, output: AsyncModelRunnerOutput, requests: list[str]) -> None:
        self._output = output
        self._requests = requests

    def get_output(self) -> Any:
        """The output, once it is there."""
        return with_failures(self._output.get_output(), self._requests)


def with_failures(output: Any, requests: list[str]) -> Any:
    """A step's output that names the requests that could not be compacted."""
    if not requests or output is None:
        return output
    if isinstance(output, AsyncModelRunnerOutput):
        return _AsyncFailures(output, requests)
    output = copy(output)  # vLLM shares one for all empty steps
    setattr(output, FAILED, requests)
    return output


def failures(output: Any) -> list[str]:
    """The requests that an output names."""
    return getattr(output, FAILED, [])
