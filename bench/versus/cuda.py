"""libchunkkv_cuda against kvpress and torch.compile on one GPU, in one process.

    python bench/versus/cuda.py [--n 32768,131072] [--layers 32] [--batch 16x8192] [--json FILE]

Needs torch with CUDA, kvpress (any folder of PYTHONPATH), and libchunkkv_cuda.so beside
libchunkkv.so (`deno task build:cuda`; CHUNKKV_LIBRARY names another libchunkkv.so).

Shape: Llama-3-8B (32 query heads, 8 kv heads, 128 elements), bf16, window 32, chunks of 10, keep
10 %. Ours run inside CUDA graphs, on four layers that take turns (so that keys come from memory)
or on all layers of a model at once; kvpress cannot be captured, it waits for the GPU once per
chunk. Median of many runs by CUDA events, microseconds per layer. Before that token and chunk
scores are compared with float64. --batch times ours alone, on so many sequences of so many tokens.
"""

import argparse
import importlib
import json
import sys
import types
from pathlib import Path

import torch

here = Path(__file__).resolve().parent
sys.path = [entry for entry in sys.path if Path(entry).resolve() != here]


def stand_in(name, **attributes):
    """kvpress imports packages that this path never calls."""
    try:
        importlib.import_module(name)
    except ImportError:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__dict__.update(attributes)
        sys.modules[name] = module


importlib.import_module("transformers.models.llama.modeling_llama")
for name, attributes in {
    "datasets": {"load_dataset": None},
    "fire": {"Fire": None},
    "requests": {"get": None},
    "cachetools": {"LRUCache": dict, "cached": lambda *_, **__: lambda function: function},
}.items():
    stand_in(name, **attributes)
import kvpress.presses.snapkv_press as snapkv_press  # noqa: E402
from kvpress import ChunkKVPress, SnapKVPress  # noqa: E402

sys.path.append(str(here))
import native  # noqa: E402

Q_HEADS, KV_HEADS, DIM, WINDOW, CHUNK, KEEP = 32, 8, 128, 32, 10, 0.1


def median_us(function, stream, runs=20, graph=True, before=lambda: None):
    with torch.cuda.stream(stream):
        function()
        function()
        torch.cuda.synchronize()
        if graph:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured, stream=stream):
                function()
            function = captured.replay
        times = []
        for run in range(runs + 3):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before()
            begin.record()
            function()
            end.record()
            torch.cuda.synchronize()
            if run >= 3:
                times.append(begin.elapsed_time(end) * 1e3)
    return sorted(times)[len(times) // 2]


def scores_in_float64(queries, keys):
    n = keys.shape[2]
    rows = queries.double().reshape(keys.shape[0], KV_HEADS, -1, DIM)
    logits = rows @ keys.double().transpose(-1, -2) * DIM**-0.5
    row = torch.arange(rows.shape[2], device="cuda")[:, None] % WINDOW
    hidden = torch.arange(n, device="cuda")[None] > n - WINDOW + row
    scores = torch.softmax(logits.masked_fill(hidden, float("-inf")), -1).sum((1, 2))
    scores[:, n - WINDOW :] = 0
    return scores


class Ours:
    def __init__(self, library, layers, n):
        self.library, self.layers, self.count = library, layers, len(layers)
        self.params = library.params(method=native.CHUNKKV, window=WINDOW, chunk_size=CHUNK)
        self.params.budget = int(KEEP * n)
        budget = self.params.budget
        batch = layers[0][1].shape[0]
        ints = {"dtype": torch.int32, "device": "cuda"}
        self.scores = [torch.empty(batch, 1, n, device="cuda") for _ in layers]
        self.chunks = torch.empty(batch, -((WINDOW - n) // CHUNK), device="cuda")
        self.indices = [torch.empty(batch, 1, budget, **ints) for _ in layers]
        self.lens = [torch.empty(batch, **ints) for _ in layers]
        self.queries = [native.query_view(q) for q, _, _ in layers]
        self.keys = [native.kv_view(k) for _, k, _ in layers]
        self.values = [native.kv_view(v) for _, _, v in layers]
        self.score_views = [native.scores_view(s) for s in self.scores]
        self.kept = [native.kept_view(i, l) for i, l in zip(self.indices, self.lens)]
        self.array = native.layer_array(list(zip(self.queries, self.keys, self.values)))
        self.kept_array = (native.Kept * self.count)(*self.kept)
        self.first = [[rows[:, :, :budget].clone() for rows in layer[1:]] for layer in layers]

    def restore(self):
        """Rows as they were: what was moved once would be found in its place the next time."""
        for layer, first in zip(self.layers, self.first):
            for rows, saved in zip(layer[1:], first):
                rows[:, :, : saved.shape[2]].copy_(saved)

    def score(self, i):
        self.library.score(self.params, self.queries[i], self.keys[i], self.score_views[i])

    def score_chunks(self, i):
        self.library.score_chunks(self.params, self.queries[i], self.keys[i], self.chunks)

    def select(self, i):
        self.library.select(self.params, self.score_views[i], self.kept[i])

    def compact(self, i):
        self.library.compact(self.keys[i], None, self.kept[i])
        self.library.compact(self.values[i], None, self.kept[i])

    def whole(self, i):
        one = (native.Layer * 1)(self.array[i])
        self.library.compress(self.params, one, (native.Kept * 1)(self.kept[i]))

    def select_model(self):
        self.library.select_layers(self.params, self.array, self.kept_array)

    def compact_model(self):
        self.library.compact_layers(self.array, self.kept_array)

    def model(self):
        self.library.compress(self.params, self.array, self.kept_array)


class Press:
    """kvpress on the first layer; its queries are drawn, not projected."""

    def __init__(self, layer, n):
        self.queries, self.keys, self.values = layer
        angles = torch.zeros(1, n, DIM, device="cuda", dtype=torch.bfloat16)
        self.rope = {"position_embeddings": (angles + 1, angles)}  # no rotation
        config = types.SimpleNamespace(num_attention_heads=Q_HEADS, num_key_value_heads=KV_HEADS)
        self.module = types.SimpleNamespace(config=config, head_dim=DIM, layer_idx=0)
        self.hidden = torch.zeros(1, 1, 1, device="cuda", dtype=torch.bfloat16).expand(1, n, 1)
        snapkv_press.get_prerope_query_states = lambda module, hidden: self.queries
        snap = SnapKVPress(compression_ratio=1 - KEEP, window_size=WINDOW)
        self.press = ChunkKVPress(press=snap, chunk_length=CHUNK)

    def whole(self):
        with torch.no_grad():
            return self.press.compress(
                self.module, self.hidden, self.keys, self.values, None, self.rope
            )


@torch.compile
def compiled_score(queries, keys):
    n = keys.shape[2]
    rows = queries.reshape(1, KV_HEADS, -1, DIM)
    logits = (rows @ keys.transpose(-1, -2)).float() * DIM**-0.5
    row = torch.arange(rows.shape[2], device=keys.device)[:, None] % WINDOW
    hidden = torch.arange(n, device=keys.device)[None] > n - WINDOW + row
    return torch.softmax(logits.masked_fill(hidden, float("-inf")), -1).sum((1, 2))


def worst_error(found, exact):
    return ((found - exact).abs() / exact.clamp_min(1e-30)).max().item()


def measure(library, batch, n, num_layers, stream):
    """Ours: stages of one layer and another in turn, then all layers at once."""

    def draw(heads, rows):
        return torch.randn(batch, heads, rows, DIM, device="cuda", dtype=torch.bfloat16)

    layers = [(draw(Q_HEADS, WINDOW), draw(KV_HEADS, n), draw(KV_HEADS, n)) for _ in range(num_layers)]
    turns = min(4, num_layers)
    ours = Ours(library, layers, n)
    workspace = torch.zeros(
        library.workspace_best(ours.params, ours.array), dtype=torch.uint8, device="cuda"
    )
    library.set_workspace(workspace)
    ours.workspace = workspace  # for as long as anything is queued

    ours.score(0)
    ours.score_chunks(0)
    library.finish()
    exact = scores_in_float64(*layers[0][:2])[:, : n - WINDOW]
    row = {"batch": batch, "n": n, "layers": num_layers}
    row["score_relative_error"] = worst_error(ours.scores[0][:, 0, : n - WINDOW], exact)
    exact = torch.nn.functional.pad(exact, (0, -(n - WINDOW) % CHUNK))
    exact = exact.reshape(batch, -1, CHUNK).sum(-1)
    row["score_chunks_relative_error"] = worst_error(ours.chunks, exact)
    for stage in ("score", "score_chunks", "select", "compact", "whole"):
        function = getattr(ours, stage)
        run = lambda: [function(i) for i in range(turns)]  # noqa: E731
        row[stage] = median_us(run, stream, before=ours.restore) / turns
    for stage in ("select_model", "compact_model"):
        row[stage] = median_us(getattr(ours, stage), stream, before=ours.restore) / num_layers
    row["whole_of_model"] = median_us(ours.model, stream, before=ours.restore) / num_layers
    library.finish()
    return ours, row


def race(library, n, num_layers, stream):
    ours, row = measure(library, 1, n, num_layers, stream)
    layers, turns = ours.layers, min(4, num_layers)
    row["kvpress_whole"] = median_us(Press(layers[0], n).whole, stream, 7, graph=False)
    row["compiled_score"] = (
        median_us(lambda: [compiled_score(*layers[i][:2]) for i in range(turns)], stream) / turns
    )
    # What the bytes alone take: as much copied from one place to another.
    moved = 2 * KV_HEADS * ours.params.budget * DIM * 2
    source, target = (torch.empty(num_layers, moved, dtype=torch.uint8, device="cuda") for _ in "ab")
    # From the same state of the L2 cache, and outside a graph, where a copy of 1.7 GB was slow.
    copy = lambda: target.copy_(source)  # noqa: E731
    row["copy_of_model"] = median_us(copy, stream, graph=False, before=ours.restore) / num_layers
    row["compact_of_copy"] = row["copy_of_model"] / row["compact_model"]
    row["times_kvpress"] = row["kvpress_whole"] / row["whole_of_model"]
    row["times_compiled_score"] = row["compiled_score"] / row["score"]
    row["times_compiled_score_chunks"] = row["compiled_score"] / row["score_chunks"]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", default="32768,131072")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--batch", default="")
    parser.add_argument("--json")
    args = parser.parse_args()
    library = native.Library(device=native.CUDA)
    stream = torch.cuda.Stream()
    library.set_stream(stream.cuda_stream)
    rows = []
    runs = [lambda n=int(n): race(library, n, args.layers, stream) for n in args.n.split(",") if n]
    for shape in filter(None, args.batch.split(",")):
        batch, n = (int(x) for x in shape.split("x"))
        runs.append(
            lambda batch=batch, n=n: measure(library, batch, n, min(4, args.layers), stream)[1]
        )
    for run in runs:
        rows.append(run())
        print(" ".join(f"{k} {v:.4g}" for k, v in rows[-1].items()), flush=True)
    if args.json:
        result = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
        Path(args.json).write_text(json.dumps(result, indent=1))


main()
