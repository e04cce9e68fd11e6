"""Scenarios on the real engine, each in a process of its own.

`python scenarios.py NAME FILE` reads {"engine": {...}, "prompts": [[...]], ...} from stdin and
writes its result to FILE. The engine core runs in this process, so that the block pool
can be counted.
"""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import replace
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# More threads would wait for each other at every step, which takes forever on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
if os.environ.get("CHUNKKV_TEST_RUNNER") == "v2":
    import fake_triton

    fake_triton.install()


DEFAULTS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 1024,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 512,
    "block_size": 32,
    "seed": 0,
    "disable_log_stats": False,
    # With eager execution, a given size spares the warm-up.
    "kv_cache_memory_bytes": 1 << 29,
}


class Engine:
    """A vLLM engine in this process, with its scheduler and block pool at hand."""

    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import LLM

        self.llm = LLM(**(DEFAULTS | options))
        self.reasons: list[str | None] = []  # why the last ones ended
        core = self.llm.llm_engine.engine_core.engine_core
        self.scheduler = core.scheduler
        self.pool = core.scheduler.kv_cache_manager.block_pool
        self.runner = core.model_executor.driver_worker.worker.model_runner
        self.reset()
        self._watch()

    def reset(self) -> None:
        """Begins counting anew."""
        self.preemptions = self.steps = self.most_running = 0
        self.over_itself = 0  # compactions that found too few fresh blocks
        self.least_free = self.free

    def _watch(self) -> None:
        preempt, update = self.scheduler._preempt_request, self.scheduler.update_from_output

        def preempting(*args: Any, **kwargs: Any) -> Any:
            self.preemptions += 1
            return preempt(*args, **kwargs)

        def updating(step: Any, output: Any) -> Any:
            self.steps += 1
            self.most_running = max(self.most_running, len(step.num_scheduled_tokens))
            self.least_free = min(self.least_free, self.free)
            for compaction in getattr(getattr(step, "chunkkv", None), "compactions", {}).values():
                self.over_itself += bool(set(compaction.old) & set(compaction.new))
            return update(step, output)

        self.scheduler._preempt_request = preempting
        self.scheduler.update_from_output = updating

    @property
    def free(self) -> int:
        """Free blocks of the pool."""
        return self.pool.get_num_free_blocks()

    def generate(self, prompts: list[list[int]], tokens: int, extra: Any = None) -> list[list[int]]:
        """Greedy continuations of all prompts at once."""
        from vllm import SamplingParams

        one = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True, extra_args=extra)
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = self.llm.generate(inputs, one, use_tqdm=False)
        self.reasons = [output.outputs[0].finish_reason for output in outputs]
        return [list(output.outputs[0].token_ids) for output in outputs]

    def counts(self) -> dict[str, int]:
        """What was counted since reset()."""
        return {
            "preemptions": self.preemptions,
            "steps": self.steps,
            "most_running": self.most_running,
            "least_free": self.least_free,
            "over_itself": self.over_itself,
            "free": self.free,
            "blocks": self.pool.num_gpu_blocks,
        }

    def tally(self) -> dict[str, int]:
        """What the plugin says that it did."""
        tally = getattr(self.scheduler, "chunkkv_tally", None)
        return vars(tally.total) if tally else {}

    def kept(self) -> list[list[list[list[int]]]]:
        """Kept indices by request, layer and head."""
        return list(getattr(getattr(self.runner, "chunkkv", None), "kept", {}).values())


def single(job: dict[str, Any]) -> dict[str, Any]:
    """Each prompt alone; extras: what each asks for."""
    engine = Engine(job["engine"])
    free, outputs = engine.free, []
    extras = job.get("extras") or [None] * len(job["prompts"])
    for prompt, extra in zip(job["prompts"], extras, strict=True):
        outputs += engine.generate([prompt], job["tokens"], extra and {"chunkkv": extra})
    kept, tally = engine.kept(), engine.tally()
    return {"outputs": outputs, "kept": kept, "free_before": free, "tally": tally} | engine.counts()


def surprise(job: dict[str, Any]) -> dict[str, Any]:
    """Scoring, then moving, fails in the middle of a run, then scoring where that is an error; then
    all is well again."""
    engine, rounds = Engine(job["engine"]), []
    compactor = engine.runner.chunkkv
    library, pages, settings = compactor.library, compactor._pages[-1], compactor.settings

    def fails(*args: Any) -> None:
        raise RuntimeError("Expected luck but found none")

    for owner, name, strict in (
        (library, "score", False),
        (pages, "move", False),
        (library, "score", True),
        (None, "", False),
    ):
        compactor.settings = replace(settings, strict=strict)
        if owner:
            setattr(owner, name, fails)
        outputs = engine.generate(job["prompts"], job["tokens"])
        rounds.append({"outputs": outputs, "reasons": engine.reasons, "free": engine.free})
        if owner:
            delattr(owner, name)
    return {"rounds": rounds, "kept": engine.kept()} | engine.counts()


def together(job: dict[str, Any]) -> dict[str, Any]:
    """Each prompt alone, then all at once."""
    engine = Engine(job["engine"])
    alone = [engine.generate([prompt], job["tokens"])[0] for prompt in job["prompts"]]
    engine.reset()
    batch = engine.generate(job["prompts"], job["tokens"])
    return {"alone": alone, "batch": batch} | engine.counts()


def churn(job: dict[str, Any]) -> dict[str, Any]:
    """Many requests of mixed kinds, some aborted, in a pool that is too small for them."""
    from vllm import SamplingParams

    engine, rng = Engine(job["engine"]), random.Random(job["seed"])
    front = engine.llm.llm_engine
    free, waiting, active, done = engine.free, job["requests"], {}, {}
    added = aborted = 0
    while added < waiting or active:
        while added < waiting and len(active) < job["parallel"]:
            name, which = f"r{added}", rng.randrange(len(job["prompts"]))
            kind = rng.choice(job["extras"])
            one = SamplingParams(
                max_tokens=rng.randint(1, job["tokens"]),
                temperature=0,
                ignore_eos=True,
                extra_args=kind and {"chunkkv": kind},
            )
            front.add_request(name, {"prompt_token_ids": job["prompts"][which]}, one)
            active[name] = (which, job["extras"].index(kind))
            added += 1
        for output in front.step():
            if output.finished and active.pop(output.request_id, None) is not None:
                done[output.request_id] = len(output.outputs[0].token_ids)
        if active and rng.random() < job["abort"]:
            name = rng.choice(sorted(active))
            front.abort_request([name])
            del active[name]
            aborted += 1
    front.step()  # the engine hears of the last ones
    blocks = engine.scheduler._chunkkv_blocks
    left = [blocks.dropped, blocks.reserved, blocks.req_to_blocks, engine.scheduler._chunkkv_plans]
    left += [engine.scheduler._chunkkv_open, engine.runner.chunkkv.capture._queries]
    total = engine.scheduler.chunkkv_tally.total
    return {
        "free_before": free,
        "finished": len(done),
        "aborted": aborted,
        "left": [len(table) for table in left],
        "compressed": total.requests,
        "freed": total.freed,
        "held": sum(block.ref_cnt > 0 and not block.is_null for block in engine.pool.blocks),
    } | engine.counts()


def ranks(job: dict[str, Any]) -> dict[str, Any]:
    """The indices that each tensor-parallel rank kept, and the answers; at last one rank fails."""
    from vllm import LLM, SamplingParams

    llm = LLM(**(DEFAULTS | job["engine"]))
    one = SamplingParams(max_tokens=job["tokens"], temperature=0, ignore_eos=True)
    inputs = [{"prompt_token_ids": prompt} for prompt in job["prompts"]]
    outputs = [llm.generate([prompt], one, use_tqdm=False)[0] for prompt in inputs]
    result = {
        "kept": [list(kept.values()) for kept in llm.collective_rpc("chunkkv_kept")],
        "outputs": [list(output.outputs[0].token_ids) for output in outputs],
    }
    llm.collective_rpc(_break_last_rank)
    (failed,) = llm.generate([inputs[0]], one, use_tqdm=False)
    return result | {"failed": failed.outputs[0].finish_reason}


def _break_last_rank(worker: Any) -> None:
    if worker.rank == worker.parallel_config.world_size - 1:
        worker.model_runner.chunkkv._pages[0].move = None


SCENARIOS = {
    "single": single,
    "surprise": surprise,
    "together": together,
    "churn": churn,
    "ranks": ranks,
}

if __name__ == "__main__":
    result = SCENARIOS[sys.argv[1]](json.load(sys.stdin))
    with open(sys.argv[2], "w") as file:
        json.dump(result, file)
