"""--scheduler-cls chunkkv_vllm.Scheduler: decides when a prompt is compacted, and accounts for it.

A prompt of n tokens is compacted after the step that computes its last token, always at the same n:
chunks of a request that was preempted and comes back end at n too, and its output so far is
computed on the compacted cache again. The last `window` tokens are always computed, never taken
from the prefix cache: their queries score the rest.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.utils.math_utils import cdiv
from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler as SyncScheduler
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager
from vllm.v1.request import Request

from . import plan as plans
from . import refusals
from .blocks import CompactedCacheManager, CompactedManager
from .log import Tally, logger
from .native import Library
from .plan import Capture, RequestPlan, StepPlan
from .settings import Settings, SettingsError, engine_settings, request_settings


class _Compacting:
    """Goes before one of vLLM's schedulers."""

    def __init__(self, vllm_config: Any, kv_cache_config: Any, *args: Any, **kwargs: Any) -> None:
        refusals.check_version()
        refusals.check_classes(vllm_config)
        refusals.check_config(vllm_config)
        refusals.check_cache(kv_cache_config)
        self.chunkkv_settings = engine_settings(vllm_config.additional_config)
        self._chunkkv_library = Library(torch.device("cpu"), self.chunkkv_settings.library, 1)
        super().__init__(vllm_config, kv_cache_config, *args, **kwargs)
        (manager,) = self.kv_cache_manager.coordinator.single_type_managers
        if type(manager) is not FullAttentionManager:
            raise refusals.UnsupportedError(
                f"chunkkv: expected vLLM's FullAttentionManager but found {type(manager).__name__}"
            )
        self.kv_cache_manager.__class__ = CompactedCacheManager
        self._chunkkv_blocks = CompactedManager.take_over(
            manager, self._chunkkv_plan_of, lambda: len(self.running)
        )
        self._chunkkv_plans: dict[str, RequestPlan] = {}
        # Requests whose prompt is still to be compacted: all that a step has to look at.
        self._chunkkv_open: set[str] = set()
        self.chunkkv_tally = Tally()

    def add_request(self, request: Request) -> None:
        """A new request: what is to happen to it."""
        super().add_request(request)
        plan = self._chunkkv_decide(request)
        if plan:
            self._chunkkv_plans[request.request_id] = plan
            self._chunkkv_open.add(request.request_id)

    def _chunkkv_decide(self, request: Request) -> RequestPlan | None:
        """The plan of a request, or None if its prompt stays as it is."""
        parameters = request.sampling_params
        # A session's prompt grows, and a single token has nothing to gain.
        if parameters is None or request.resumable or request.max_tokens <= 1:
            return None
        try:
            settings = request_settings(self.chunkkv_settings, parameters.extra_args)
        except SettingsError as error:
            logger.warning("Request %s goes on uncompressed: %s", request.request_id, error)
            return None
        n = request.num_prompt_tokens
        if settings.off or settings.method == "full" or n < settings.min_tokens:
            return None
        k = self._chunkkv_kept(settings, n)
        size = self._chunkkv_blocks.block_size
        if cdiv(n, size) - cdiv(k, size) < settings.min_freed_blocks:
            return None
        return RequestPlan(n, k)

    def _chunkkv_kept(self, settings: Settings, n: int) -> int:
        if settings.budget is not None:
            return min(settings.budget, n)
        return self._chunkkv_library.budget_for(settings.keep, n)

    def _chunkkv_plan_of(self, request_id: str) -> RequestPlan | None:
        return self._chunkkv_plans.get(request_id)

    def _get_local_prefix_cache_hit(self, request: Request) -> tuple[KVCacheBlocks, int, int, bool]:
        blocks, hit, boundary, diverged = super()._get_local_prefix_cache_hit(request)
        plan = self._chunkkv_plans.get(request.request_id)
        size = self._chunkkv_blocks.block_size
        if plan and hit > plan.n - self.chunkkv_settings.window:
            hit = max(plan.n - self.chunkkv_settings.window, 0) // size * size
            blocks = self.kv_cache_manager.truncate_computed_blocks(blocks, hit)
        return blocks, hit, boundary, diverged

    def _reserve_prefill_lookahead(
        self, request: Request, num_computed_tokens: int, num_new_tokens: int
    ) -> int:
        """vLLM asks this last for every chunk: one ends exactly at the prompt's end."""
        tokens = super()._reserve_prefill_lookahead(request, num_computed_tokens, num_new_tokens)
        plan = self._chunkkv_plans.get(request.request_id)
        left = plan.n - num_computed_tokens if plan else 0
        return min(tokens, left) if left > 0 else tokens

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super()._preempt_request(request, *args, **kwargs)
        if request.request_id in self._chunkkv_plans:
            self._chunkkv_open.add(request.request_id)

    def _free_blocks(self, request: Request) -> None:
        super()._free_blocks(request)
        self._chunkkv_plans.pop(request.request_id, None)
        self._chunkkv_open.discard(request.request_id)

    def _update_after_schedule(self, scheduler_output: SchedulerOutput) -> None:
        super()._update_after_schedule(scheduler_output)
        if self._chunkkv_open:
            due = self._chunkkv_open & scheduler_output.num_scheduled_tokens.keys()
            if due:
                # Sorted: every rank compacts in one order.
                self._chunkkv_step(scheduler_output, sorted(due))
        self.chunkkv_tally.report()

    def _chunkkv_step(self, scheduler_output: SchedulerOutput, due: list[str]) -> None:
        """Plans the step; blocks are freed after all of them, so that none is used twice in it."""
        window = self.chunkkv_settings.window
        step, free = StepPlan(), []
        for request_id in due:
            plan = self._chunkkv_plans[request_id]
            # num_computed_tokens counts this step already.
            end = self.requests[request_id].num_computed_tokens
            start = end - scheduler_output.num_scheduled_tokens[request_id]
            first, last = max(start, plan.n - window), min(end, plan.n)
            if first < last:
                step.captures[request_id] = Capture(
                    first - start, last - first, first - (plan.n - window)
                )
            if not start < plan.n <= end:
                continue
            self._chunkkv_open.discard(request_id)
            compacted = self._chunkkv_blocks.compact(request_id, plan)
            if compacted is None:
                del self._chunkkv_plans[request_id]
                logger.warning(
                    "Request %s goes on uncompressed: no blocks were set aside", request_id
                )
                continue
            step.compactions[request_id] = compacted[0]
            free.append(compacted[1])
            self.chunkkv_tally.add(compacted[0])
        for blocks in free:
            self.kv_cache_manager.block_pool.free_blocks(blocks)
        plans.attach(scheduler_output, step)

    def update_from_output(self, scheduler_output: SchedulerOutput, output: Any) -> Any:
        """The step's tokens; a request whose rows are lost ends with an error."""
        for request_id in plans.failures(output):
            logger.error("Request %s ends with an error: it could not be compacted", request_id)
            # vLLM ends those in this set with FINISHED_ERROR, after the step's tokens.
            self.grammar_compile_error_reqs.add(request_id)
        return super().update_from_output(scheduler_output, output)

    def shutdown(self) -> None:
        """Says what was not said yet."""
        self.chunkkv_tally.report(now=True)
        super().shutdown()


class CompactingScheduler(_Compacting, SyncScheduler):
    """Without async scheduling."""


class CompactingAsyncScheduler(_Compacting, AsyncScheduler):
    """With async scheduling, vLLM's default."""


class Scheduler:
    """One name for both: vLLM's configuration says which it is."""

    def __new__(cls, vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
        """The scheduler itself, not an instance of this class."""
        asynchronous = vllm_config.scheduler_config.async_scheduling
        chosen = CompactingAsyncScheduler if asynchronous else CompactingScheduler
        return chosen(vllm_config, *args, **kwargs)
