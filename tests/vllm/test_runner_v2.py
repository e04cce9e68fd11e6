"""When the V2 runner writes a compacted request's block table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from chunkkv_vllm.runner_v2 import CompactingRunnerV2


class _Tables:
    def __init__(self) -> None:
        self.writes: list[tuple[int, list[int], bool]] = []

    def append_block_ids(self, row: int, blocks: tuple[list[int]], overwrite: bool) -> None:
        self.writes.append((row, blocks[0], overwrite))


class _Base:
    """What vLLM's runner does with rows at the start of a step."""

    def update_requests(self, scheduler_output: Any) -> None:
        for request_id, blocks in scheduler_output:
            self.block_tables.append_block_ids(
                self.req_states.req_id_to_index[request_id], (blocks,), overwrite=False
            )

    def _remove_request(self, req_id: str) -> bool:
        return self.req_states.req_id_to_index.pop(req_id, None) is not None


class _Runner(CompactingRunnerV2, _Base):
    def __init__(self) -> None:
        self.chunkkv = SimpleNamespace(forget=lambda request_id: None)
        self.req_states = SimpleNamespace(req_id_to_index={"a": 2})
        self.block_tables = _Tables()
        self._chunkkv_host = np.zeros(4, dtype=np.int32)
        self._chunkkv_device = torch.zeros(4, dtype=torch.int32)
        self._chunkkv_compacted = 0
        self._chunkkv_tables = {}


COMPACTION = SimpleNamespace(new=[40, 41], n=100, k=30)


def test_a_new_table_is_written_before_the_next_blocks_of_its_request() -> None:
    runner = _Runner()
    runner.chunkkv_adopt("a", COMPACTION)
    assert runner.block_tables.writes == []
    assert runner._chunkkv_compacted == 1
    runner.update_requests([("a", [42])])
    assert runner.block_tables.writes == [(2, [40, 41], True), (2, [42], False)]
    runner.update_requests([("a", [43])])
    assert runner.block_tables.writes[2:] == [(2, [43], False)]


def test_a_request_that_leaves_before_does_not_write_into_the_row_of_the_next() -> None:
    runner = _Runner()
    runner.chunkkv_adopt("a", COMPACTION)
    runner._remove_request("a")
    assert runner._chunkkv_compacted == 0
    runner.req_states.req_id_to_index["b"] = 2
    runner.update_requests([("b", [50])])
    assert runner.block_tables.writes == [(2, [50], False)]
