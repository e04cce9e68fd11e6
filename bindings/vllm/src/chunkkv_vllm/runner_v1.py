"""vLLM's V1 model runner (the CPU's) with compacted requests in its batches.

A compacted request's tokens keep their positions; only their slots, p - dropped, and the length
that attention sees, length - dropped, are smaller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from . import plan as plans
from .compactor import Compactor
from .runner import CompactingRunner


class CompactingRunnerV1(CompactingRunner):
    """Goes before vllm.v1.worker.gpu_model_runner.GPUModelRunner or its CPU child."""

    def chunkkv_init(self, compactor: Compactor) -> None:
        """After the runner's own constructor."""
        super().chunkkv_init(compactor)
        self._chunkkv_dropped: dict[str, int] = {}

    def _prepare_inputs(self, scheduler_output: Any, num_scheduled_tokens: Any) -> Any:
        result = super()._prepare_inputs(scheduler_output, num_scheduled_tokens)
        if self._chunkkv_dropped:
            self._chunkkv_shift(scheduler_output.total_num_scheduled_tokens)
        index = self.input_batch.req_id_to_index
        self.chunkkv.capture.begin(
            plans.of(scheduler_output), lambda rid: int(self.query_start_loc.np[index[rid]])
        )
        return result

    def _chunkkv_shift(self, num_tokens: int) -> None:
        """Slots and lengths of the batch; positions stay."""
        count = self.input_batch.num_reqs
        dropped = [self._chunkkv_dropped.get(rid, 0) for rid in self.input_batch.req_ids[:count]]
        if not any(dropped):
            return
        host = torch.from_numpy(np.array(dropped, dtype=np.int32))
        device = host.to(self.device, non_blocking=True)
        slots = self.positions[:num_tokens] - device[self.req_indices.gpu[:num_tokens]]
        self.input_batch.block_table.compute_slot_mapping(
            count, self.query_start_loc.gpu[: count + 1], slots
        )
        self.seq_lens[:count] -= device
        self.optimistic_seq_lens_cpu[:count] -= host

    def _determine_batch_execution_and_padding(self, *args: Any, **kwargs: Any) -> Any:
        # A full CUDA graph does not call Python, where queries are seen.
        if self.chunkkv.capture.active:
            kwargs["force_eager"] = True
        return super()._determine_batch_execution_and_padding(*args, **kwargs)

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """One step, and the compactions that follow it."""
        cached = scheduler_output.scheduled_cached_reqs.resumed_req_ids
        fresh = {request.req_id for request in scheduler_output.scheduled_new_reqs}
        gone = fresh.union(
            scheduler_output.finished_req_ids, scheduler_output.preempted_req_ids or (), cached
        )
        for request_id in gone:
            self._chunkkv_dropped.pop(request_id, None)
            self.chunkkv.forget(request_id)
        output = super().execute_model(scheduler_output, *args, **kwargs)
        self.chunkkv_after(plans.of(scheduler_output))
        return output

    def chunkkv_adopt(self, request_id: str, compaction: plans.Compaction) -> None:
        """The request's new block table."""
        row = self.input_batch.req_id_to_index[request_id]
        table = self.input_batch.block_table[0]
        table.block_table.np[row, : table.num_blocks_per_row[row]] = 0
        table.add_row(compaction.new, row)
        self.requests[request_id].block_ids = (list(compaction.new),)
        self._chunkkv_dropped[request_id] = compaction.n - compaction.k
