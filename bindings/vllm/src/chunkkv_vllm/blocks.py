"""Block accounting of compressed requests, in vLLM's own KV cache managers.

A compressed request occupies num_tokens - dropped slots. Its rows go to fresh blocks, so that its
old blocks keep their hashes in the prefix cache; where the pool has too few, to blocks of its own
that nobody else holds, which leave the prefix cache first. A block that another request holds is
never written. What a compaction needs is reserved when the prompt's last chunk is allocated: so it
always happens at the same token, whatever the load, and a request's answer does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vllm.utils.math_utils import cdiv
from vllm.v1.core.kv_cache_manager import KVCacheBlocks, KVCacheManager
from vllm.v1.core.kv_cache_utils import KVCacheBlock
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager
from vllm.v1.request import Request

from .plan import Compaction, RequestPlan


@dataclass
class Reservation:
    """Blocks for the kept rows: `fresh` ones from the pool, then `own` ones of the request."""

    fresh: list[KVCacheBlock]
    own: list[KVCacheBlock]


class CompactedManager(FullAttentionManager):
    """FullAttentionManager in which a compressed request has num_tokens - dropped slots."""

    dropped: dict[str, int]
    reserved: dict[str, Reservation]
    plan_of: Callable[[str], RequestPlan | None]
    headroom: Callable[[], int]

    @classmethod
    def take_over(
        cls,
        manager: FullAttentionManager,
        plan_of: Callable[[str], RequestPlan | None],
        headroom: Callable[[], int],
    ) -> CompactedManager:
        """Turns the engine's manager into one of these.

        plan_of: what is to happen to a request, while it has not happened. headroom: blocks that a
        reservation had better leave to the other requests of a step.
        """
        manager.__class__ = cls
        manager.dropped, manager.reserved = {}, {}
        manager.plan_of, manager.headroom = plan_of, headroom
        return manager

    def get_num_blocks_to_allocate(
        self,
        request_id: str,
        num_tokens: int,
        new_computed_blocks: Sequence[KVCacheBlock],
        total_computed_tokens: int,
        num_local_computed_tokens: int,
        num_tokens_main_model: int,
        apply_admission_cap: bool = False,
        prefill_end: int = 0,
    ) -> int:
        """Blocks to allocate, with those that the compaction at the prompt's end needs."""
        dropped = self.dropped.get(request_id, 0)
        plan = None if dropped else self.plan_of(request_id)
        slots = num_tokens - dropped
        if plan and apply_admission_cap:
            # A resumed request never holds its prompt and all its output at once.
            slots = max(min(slots, plan.n), slots - plan.dropped)
        need = super().get_num_blocks_to_allocate(
            request_id,
            slots,
            new_computed_blocks,
            total_computed_tokens,
            num_local_computed_tokens,
            num_tokens_main_model - dropped,
            apply_admission_cap=apply_admission_cap,
            prefill_end=prefill_end,
        )
        if plan and total_computed_tokens < plan.n <= num_tokens:
            held = sum(block.ref_cnt > 1 for block in self.req_to_blocks.get(request_id, ()))
            held += sum(block.ref_cnt > 0 for block in new_computed_blocks)
            private = cdiv(plan.n, self.block_size) - held
            need += max(cdiv(plan.k, self.block_size) - private, 0)
        return need

    def allocate_new_blocks(
        self, request_id: str, num_tokens: int, num_tokens_main_model: int
    ) -> list[KVCacheBlock]:
        """New blocks, for the slots that the request really has."""
        dropped = self.dropped.get(request_id, 0)
        return super().allocate_new_blocks(
            request_id, num_tokens - dropped, num_tokens_main_model - dropped
        )

    def cache_blocks(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Nothing for compressed requests: their rows are not what the tokens' hashes say."""
        if request.request_id not in self.dropped:
            super().cache_blocks(request, *args, **kwargs)

    def pop_blocks_for_free(self, request_id: str) -> list[KVCacheBlock]:
        """Finish, abort and preemption all end here."""
        self.dropped.pop(request_id, None)
        reservation = self.reserved.pop(request_id, None)
        blocks = super().pop_blocks_for_free(request_id)
        return blocks + reservation.fresh if reservation else blocks

    def reserve(self, request_id: str, plan: RequestPlan) -> None:
        """Sets the blocks of a compaction aside; get_num_blocks_to_allocate has counted them."""
        blocks, count = self.req_to_blocks[request_id], cdiv(plan.k, self.block_size)
        if not self.enable_caching:
            self.reserved[request_id] = Reservation([], blocks[:count])
            return
        free = self.block_pool.get_num_free_blocks()
        fresh = max(0, min(count, free - self.headroom()))
        # Without a hash first, then from the prompt's end, which others share least.
        private = [block for block in reversed(blocks) if block.ref_cnt == 1]
        private.sort(key=lambda block: block.block_hash is not None)
        fresh = max(fresh, min(free, count - len(private)))
        own = private[: count - fresh]
        if fresh + len(own) < count:
            return  # not set aside: the request goes on uncompressed
        self.block_pool.evict_blocks({block.block_id for block in own if block.block_hash})
        new = self.block_pool.get_new_blocks(fresh)
        if self._record_new_block_ids:
            self.new_block_ids.extend(block.block_id for block in new)
        self.reserved[request_id] = Reservation(new, own)

    def compact(
        self, request_id: str, plan: RequestPlan
    ) -> tuple[Compaction, list[KVCacheBlock]] | None:
        """Gives the request its new blocks; the second value is to be freed, tail first.

        None where nothing was reserved.
        """
        reservation = self.reserved.pop(request_id, None)
        if reservation is None:
            return None
        old = self.req_to_blocks[request_id]
        new = reservation.fresh + reservation.own
        stay = {block.block_id for block in reservation.own}
        compaction = Compaction(
            plan.n, plan.k, [block.block_id for block in old], [block.block_id for block in new]
        )
        self.req_to_blocks[request_id] = new
        self.dropped[request_id] = plan.dropped
        return compaction, [block for block in reversed(old) if block.block_id not in stay]


class CompactedCacheManager(KVCacheManager):
    """KVCacheManager that reserves the blocks of a compaction with the prompt's last chunk."""

    def allocate_slots(
        self,
        request: Request,
        num_new_tokens: int,
        num_new_computed_tokens: int = 0,
        *args: Any,
        **kwargs: Any,
    ) -> KVCacheBlocks | None:
        """Slots for a chunk, and blocks for the compaction that follows it."""
        blocks = super().allocate_slots(
            request, num_new_tokens, num_new_computed_tokens, *args, **kwargs
        )
        (manager,) = self.coordinator.single_type_managers
        plan = None if blocks is None else manager.plan_of(request.request_id)
        if plan:
            start = request.num_computed_tokens + num_new_computed_tokens
            if start < plan.n <= start + num_new_tokens:
                manager.reserve(request.request_id, plan)
        return blocks
