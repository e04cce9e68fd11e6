"""Measurements of the vLLM plugin on the CPU, each turn an engine in a process of its own.

    python bench/vllm/measure.py pool    six long requests in 100 blocks, with and without
    python bench/vllm/measure.py churn   200 requests with aborts and preemptions
    python bench/vllm/measure.py idle    steps with the plugin loaded but idle, and without it

Run it with the Python that bindings/vllm/setup.sh names. --turns gives the order of the engines,
--threads the cores. A row is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "vllm"))

from conftest import MODEL, TEXT, plugin  # noqa: E402

LENGTHS = (900, 700, 200, 1000, 600, 820)
TOKENS = 200


def _prompts(lengths: tuple[int, ...]) -> list[list[int]]:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(MODEL)(TEXT.read_text()).input_ids
    return [ids[i * 157 : i * 157 + length] for i, length in enumerate(lengths)]


def _engine(turn: str, keep: float, **options: Any) -> Any:
    from scenarios import Engine

    settings = {"chunkkv": plugin(keep=keep, threads=0), "idle": plugin(off=True), "stock": {}}[
        turn
    ]
    return Engine({"model": str(MODEL), "max_model_len": 2048} | options | settings)


def _timed(owner: type, name: str) -> list[float]:
    """The milliseconds of each call of a method from now on."""
    method, spent = getattr(owner, name), []

    def timed(*args: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args)
        finally:
            spent.append((time.perf_counter() - start) * 1e3)

    setattr(owner, name, timed)
    return spent


def pool(turn: str, keep: float) -> dict[str, Any]:
    """Six requests at once in a pool of 100 blocks of 32 tokens."""
    engine = _engine(turn, keep, num_gpu_blocks_override=100)
    prompts = _prompts(LENGTHS)
    engine.generate([prompts[2][:64]], 4)  # warm
    engine.reset()
    spent = {}
    if turn == "chunkkv":
        from chunkkv_vllm.compactor import Compactor
        from chunkkv_vllm.pages import PackedPages

        spent["compact_ms"] = _timed(Compactor, "_compact")
        spent["unpack_keys_ms"] = _timed(PackedPages, "keys")
    start, cpu = time.perf_counter(), time.process_time()
    engine.generate(prompts, TOKENS)
    seconds = {
        "seconds": round(time.perf_counter() - start, 2),
        # Of all threads: other programs on the machine stretch the seconds, these hardly.
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }
    stages = {name: round(sum(each), 1) for name, each in spent.items()}
    return seconds | stages | engine.counts() | engine.tally()


def churn(turn: str, keep: float) -> dict[str, Any]:
    """200 requests of mixed kinds, a twentieth of the steps aborting one, in 36 blocks."""
    from scenarios import churn as scenario

    pieces = _prompts((210, 300, 130, 400))
    pieces.append(pieces[3][:200] + pieces[1][:100])
    job = {
        "engine": {"model": str(MODEL), "num_gpu_blocks_override": 36} | plugin(keep=keep),
        "prompts": pieces,
        "extras": [None, None, {"off": True}, {"keep": 0.3}, {"budget": 100}, {"keep": "half"}],
        "requests": 200,
        "parallel": 12,
        "tokens": 120,
        "abort": 0.05,
        "seed": 11,
    }
    start = time.perf_counter()
    return scenario(job) | {"seconds": round(time.perf_counter() - start, 2)}


class Loaded:
    """The plugin of a running engine, taken out and put back between two steps."""

    def __init__(self, engine: Any) -> None:
        self._scheduler, runner = engine.scheduler, engine.runner
        cache = self._scheduler.kv_cache_manager
        (manager,) = cache.coordinator.single_type_managers
        # The plugin's class comes first in each; vLLM's own is so many places behind it.
        places = {runner: 3, cache: 1, manager: 1}
        self._classes = [
            (owner, type(owner), type(owner).__mro__[n]) for owner, n in places.items()
        ]
        ours = type(self._scheduler).__mro__[1]
        self._methods = {
            name: getattr(super(ours, self._scheduler), name)
            for name in ("_update_after_schedule", "_reserve_prefill_lookahead")
        }
        layers = runner.chunkkv._layers.values()
        self._forwards = [(layer.impl, layer.impl.forward) for layer in layers]

    def put(self, there: bool) -> None:
        """In, or out."""
        for owner, ours, plain in self._classes:
            owner.__class__ = ours if there else plain
        for name, method in self._methods.items():
            vars(self._scheduler).pop(name, None)
            if not there:
                setattr(self._scheduler, name, method)
        for impl, forward in self._forwards:
            vars(impl).pop("forward", None)
            if there:
                impl.forward = forward


def idle(turn: str, keep: float) -> dict[str, Any]:
    """Milliseconds of a step that decodes eight requests, the plugin in and out by turns.

    Engines in processes of their own differ by more than what is to be seen here.
    """
    engine = _engine(turn, keep)
    loaded, every = Loaded(engine), 5
    update = engine.scheduler.update_from_output
    steps: dict[bool, list[float]] = {True: [], False: []}
    state = {"at": 0.0, "count": 0, "there": True}

    def updating(step: Any, output: Any) -> Any:
        now, result = time.perf_counter(), update(step, output)
        if step.total_num_scheduled_tokens == 8:
            state["count"] += 1
            if state["count"] % every > 1:  # the first of a turn belongs to both
                steps[state["there"]].append((now - state["at"]) * 1e3)
            if state["count"] % every == 0:
                state["there"] = not state["there"]
                loaded.put(state["there"])
        state["at"] = time.perf_counter()
        return result

    engine.scheduler.update_from_output = updating
    engine.generate(_prompts((100,) * 8), 900)
    loaded.put(True)
    median = {there: statistics.median(times) for there, times in steps.items()}
    tenth = {there: statistics.quantiles(times, n=10)[0] for there, times in steps.items()}
    return {
        "steps": len(steps[True]),
        "median_ms_with": round(median[True], 3),
        "median_ms_without": round(median[False], 3),
        "overhead_percent": round(100 * (median[True] / median[False] - 1), 2),
        "fastest_tenth_percent": round(100 * (tenth[True] / tenth[False] - 1), 2),
    }


MEASUREMENTS = {
    "pool": (pool, "stock,chunkkv,stock,chunkkv"),
    "churn": (churn, "chunkkv"),
    "idle": (idle, "idle,idle"),
}


def main() -> None:
    """One process for each turn, or, with --here, the one turn itself."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=MEASUREMENTS)
    parser.add_argument("--turns", help="stock, chunkkv or idle, comma-separated")
    parser.add_argument("--keep", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--here", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    measure, order = MEASUREMENTS[options.what]
    turns = (options.turns or order).split(",")
    if options.here:
        Path(options.here).write_text(json.dumps(measure(turns[0], options.keep)))
        return
    for turn in turns:
        file = Path(f"/tmp/chunkkv-vllm-{os.getpid()}.json")
        again = [sys.executable, __file__, options.what, "--turns", turn, "--here", str(file)]
        environment = {"OMP_NUM_THREADS": str(options.threads)}
        process = subprocess.run(
            [*again, "--keep", str(options.keep)],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        if process.returncode:
            sys.exit(process.stdout[-2000:] + process.stderr[-4000:])
        print(json.dumps({"engine": turn} | json.loads(file.read_text())), flush=True)
        file.unlink()


if __name__ == "__main__":
    main()
