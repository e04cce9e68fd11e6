"""vLLM's V2 model runner (CUDA's default) with compacted requests in its batches.

As with V1, positions stay; slots and the length that attention sees are smaller. The sampler reads
the batch's own seq_lens, so attention gets a copy: at one address, because CUDA graphs keep it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from . import plan as plans
from .compactor import Compactor
from .refusals import check_graphs
from .runner import CompactingRunner


class CompactingRunnerV2(CompactingRunner):
    """Goes before vllm.v1.worker.gpu.model_runner.GPUModelRunner or its CPU child."""

    def chunkkv_init(self, compactor: Compactor) -> None:
        """After the runner's own constructor."""
        super().chunkkv_init(compactor)
        count = self.max_num_reqs
        self._chunkkv_host = np.zeros(count, dtype=np.int32)
        self._chunkkv_device = torch.zeros(count, dtype=torch.int32, device=self.device)
        self._chunkkv_seq_lens = torch.zeros(count, dtype=torch.int32, device=self.device)
        self._chunkkv_compacted = 0  # requests that have fewer slots than tokens
        self._chunkkv_tables: dict[str, list[int]] = {}  # new ones that are not yet written
        self._chunkkv_real = False  # whether the step at hand is a real one

    def load_model(self, *args: Any, **kwargs: Any) -> Any:
        """The model; its state prepares attention."""
        result = super().load_model(*args, **kwargs)
        prepare = self.model_state.prepare_attn

        def prepare_attn(input_batch: Any, *args: Any, **kwargs: Any) -> Any:
            return prepare(self._chunkkv_lengths(input_batch), *args, **kwargs)

        self.model_state.prepare_attn = prepare_attn
        return result

    def initialize_kv_cache(self, *args: Any, **kwargs: Any) -> Any:
        """The cache, after which the mode of CUDA graphs is known."""
        result = super().initialize_kv_cache(*args, **kwargs)
        check_graphs(self.vllm_config.compilation_config)
        return result

    def _chunkkv_lengths(self, batch: Any) -> Any:
        """The batch as attention is to see it."""
        shift = self._chunkkv_real and self._chunkkv_compacted > 0
        if not shift and self.device.type == "cpu":
            return batch  # no graph keeps an address
        lengths = self._chunkkv_seq_lens[: batch.seq_lens.shape[0]]
        lengths.copy_(batch.seq_lens)
        bound = batch.seq_lens_cpu_upper_bound
        if shift:
            count = batch.num_reqs
            lengths[:count] -= self._chunkkv_device[batch.idx_mapping]
            bound = bound.clone()
            bound[:count] -= torch.from_numpy(self._chunkkv_host[batch.idx_mapping_np])
        return dataclasses.replace(batch, seq_lens=lengths, seq_lens_cpu_upper_bound=bound)

    def gather_batch_req_state(self, scheduler_output: Any, dummy_run: bool) -> Any:
        """The batch's state; a step whose queries are needed does not run as a full CUDA graph."""
        state, uniform = super().gather_batch_req_state(scheduler_output, dummy_run)
        step = None if dummy_run else plans.of(scheduler_output)
        if state is not None and step is not None and step.captures:
            state = state._replace(decode_graph_eligible=False)
            uniform = None
        return state, uniform

    def prepare_inputs(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """The batch, and where the queries to be seen are in it."""
        batch = super().prepare_inputs(scheduler_output, *args, **kwargs)
        self.chunkkv.capture.begin(
            plans.of(scheduler_output),
            lambda rid: int(batch.query_start_loc_np[batch.req_ids.index(rid)]),
        )
        return batch

    def prepare_attn(self, input_batch: Any) -> Any:
        """Block tables and slots; those of compacted requests are at p - dropped."""
        if not self._chunkkv_compacted:
            return super().prepare_attn(input_batch)
        rows = np.diff(input_batch.query_start_loc_np[: input_batch.num_reqs + 1])
        dropped = np.repeat(self._chunkkv_host[input_batch.idx_mapping_np], rows)
        positions = input_batch.positions.clone()
        shift = torch.from_numpy(dropped).to(self.device, non_blocking=True)
        positions[: len(dropped)] -= shift
        return super().prepare_attn(dataclasses.replace(input_batch, positions=positions))

    def _remove_request(self, req_id: str) -> bool:
        """Finished, preempted, or about to begin anew."""
        self.chunkkv.forget(req_id)
        self._chunkkv_tables.pop(req_id, None)
        row = self.req_states.req_id_to_index.get(req_id)
        if row is not None and self._chunkkv_host[row]:
            self._chunkkv_set(row, 0)
        return super()._remove_request(req_id)

    def update_requests(self, scheduler_output: Any) -> None:
        """New blocks of running requests, and before them the tables that compaction has changed.

        Not earlier: writes of one step go to the device in any order, and a request that leaves
        before may have given its row to another.
        """
        for request_id, blocks in self._chunkkv_tables.items():
            row = self.req_states.req_id_to_index[request_id]
            self.block_tables.append_block_ids(row, (blocks,), overwrite=True)
        self._chunkkv_tables.clear()
        super().update_requests(scheduler_output)

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """One step, and the compactions that follow it."""
        self._chunkkv_real = not kwargs.get("dummy_run", False)
        try:
            output = super().execute_model(scheduler_output, *args, **kwargs)
        finally:
            self._chunkkv_real = False
        self.chunkkv_after(plans.of(scheduler_output))
        return output

    def chunkkv_adopt(self, request_id: str, compaction: plans.Compaction) -> None:
        """The request's new block table and length."""
        self._chunkkv_tables[request_id] = list(compaction.new)
        row = self.req_states.req_id_to_index[request_id]
        self._chunkkv_set(row, compaction.n - compaction.k)

    def _chunkkv_set(self, row: int, dropped: int) -> None:
        self._chunkkv_host[row] = dropped
        self._chunkkv_device[row] = dropped
        self._chunkkv_compacted = int(np.count_nonzero(self._chunkkv_host))
