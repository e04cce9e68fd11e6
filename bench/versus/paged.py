"""libchunkkv straight on the pages of a paged KV cache: right, and as fast as on packed keys.

    python bench/versus/paged.py [--only checks|race] [--n 32768,131072] [--layers 6] [--json FILE]

Needs torch, and for CUDA libchunkkv_cuda.so beside libchunkkv.so (`deno task build:cuda`;
CHUNKKV_LIBRARY names another libchunkkv.so). --device cpu checks and does not race.

First the checks (paged_check.py says which). Then a race between a packed cache and pages whose
block tables are shuffled (or rise: --order), on the same keys and values of a Llama-3-8B layer (32
query heads, 8 kv heads, 128 elements, bf16), window 32, chunks of 10, keep 10 %. Each stage runs
inside a CUDA graph on all layers one by one, each in calls of its own, or on all at once in one
call; layers take turns, so that what they read is not in L2. Packed and paged caches take turns, too: median of --runs by
CUDA events, microseconds per layer.
"""

import argparse
import json
import sys
from pathlib import Path

import native
import torch
from paged_check import check_all
from pages import LAYOUTS, Pages, shuffled_tables

Q_HEADS, KV_HEADS, DIM, WINDOW, CHUNK, KEEP = 32, 8, 128, 32, 10, 0.1


class Cache:
    """The layers of one sequence of n tokens, packed or in pages, and the stages on them."""

    def __init__(self, library, queries, rows, layout, block_size, order):
        """queries: [1, q_heads, window, dim] of each layer; rows: (keys, values), each [1, kv_heads,
        n, dim], of each layer."""
        self.name = layout if layout == "packed" else f"{layout} {block_size}"
        self.library, self.queries, n = library, queries, rows[0][0].shape[2]
        self.params = library.params(method=native.CHUNKKV, window=WINDOW, chunk_size=CHUNK)
        self.params.budget = int(KEEP * n)
        if layout == "packed":
            self.memory = [memory.clone() for layer in rows for memory in layer]
            views = [native.kv_view(memory) for memory in self.memory]
        else:
            count = -(-n // block_size)
            self.table, _ = shuffled_tables([n], block_size, count, "cuda")
            if order == "rising":
                self.table[0, :count] = self.table[0, :count].sort().values
            self.lens = torch.tensor([n], dtype=torch.int32, device="cuda")
            self.memory, views = [], []
            for layer in rows:
                pages = Pages(layout, count, block_size, KV_HEADS, DIM, torch.bfloat16, "cuda")
                self.memory += pages.memory
                for which in (0, 1):
                    pages.write(which, self.table[0], layer[which][0])
                    view = native.pages_view(pages.both[which], self.table, self.lens, n)
                    views.append(view)
        self.layers = list(zip(map(native.query_view, queries), views[::2], views[1::2]))
        self.array = native.layer_array(self.layers)
        self.scores = [torch.zeros(1, 1, n, device="cuda") for _ in rows]
        self.indices = torch.zeros(
            len(rows), 1, 1, self.params.budget, dtype=torch.int32, device="cuda"
        )
        self.kept_lens = torch.zeros(len(rows), 1, dtype=torch.int32, device="cuda")
        self.kept = (native.Kept * len(rows))(
            *(native.kept_view(*kept) for kept in zip(self.indices, self.kept_lens))
        )
        self.first_rows = [memory.clone() for memory in self.memory]

    def restore(self):
        """All rows as they were: what was moved once would move nowhere the next time."""
        for memory, first in zip(self.memory, self.first_rows):
            memory.copy_(first)

    def score(self):
        for (queries, keys, _), scores in zip(self.layers, self.scores):
            self.library.score(self.params, queries, keys, native.scores_view(scores))

    def compact(self):
        for (_, keys, values), kept in zip(self.layers, self.kept):
            self.library.compact(keys, None, kept)
            self.library.compact(values, None, kept)

    def compress(self):
        for i in range(len(self.layers)):
            one, kept = (native.Layer * 1)(self.array[i]), (native.Kept * 1)(self.kept[i])
            self.library.compress(self.params, one, kept)

    def compress_at_once(self):
        self.library.compress(self.params, self.array, self.kept)


STAGES = ("score", "compact", "compress", "compress_at_once")


def captured(function, stream):
    """The function as a CUDA graph."""
    function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        function()
    return graph


def medians(caches, stage, stream, runs):
    """Microseconds of one stage per layer, the caches in turns."""
    with torch.cuda.stream(stream):
        graphs = []
        for cache in caches:
            cache.restore()
            graphs.append(captured(getattr(cache, stage), stream))
        times = [[] for _ in caches]
        for run in range(runs + 2):
            for cache, graph, mine in zip(caches, graphs, times):
                if stage != "score":
                    cache.restore()
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                graph.replay()
                end.record()
                torch.cuda.synchronize()
                if run >= 2:
                    mine.append(begin.elapsed_time(end) * 1e3 / len(cache.layers))
    return [sorted(mine)[len(mine) // 2] for mine in times]


def race(library, n, num_layers, runs, order):
    def draw(heads, rows):
        return torch.randn(1, heads, rows, DIM, device="cuda", dtype=torch.bfloat16)

    queries = [draw(Q_HEADS, WINDOW) for _ in range(num_layers)]
    rows = [(draw(KV_HEADS, n), draw(KV_HEADS, n)) for _ in range(num_layers)]
    kinds = [("packed", 0), *((layout, size) for layout in LAYOUTS for size in (16, 32))]
    caches = [Cache(library, queries, rows, *kind, order) for kind in kinds]
    del rows
    stream = torch.cuda.Stream()
    bytes_needed = max(library.workspace_best(c.params, c.array) for c in caches)
    workspace = torch.zeros(bytes_needed, dtype=torch.uint8, device="cuda")
    library.set_stream(stream.cuda_stream)
    library.set_workspace(workspace)
    torch.cuda.synchronize()  # the caches are made on another stream
    with torch.cuda.stream(stream):
        for cache in caches:
            cache.compress_at_once()  # the indices that `compact` moves
    library.finish()
    result = [
        {
            "n": n,
            "layers": num_layers,
            "cache": cache.name,
            "keeps_the_same": torch.equal(cache.indices, caches[0].indices),
        }
        for cache in caches
    ]
    for stage in STAGES:
        for row, time in zip(result, medians(caches, stage, stream, runs)):
            row[stage] = time
    library.finish()
    for row in result:
        row["score_and_compact"] = row["score"] + row["compact"]
        for stage in (*STAGES, "score_and_compact"):
            row[f"{stage}_to_packed"] = row[stage] / result[0][stage]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--only", choices=["checks", "race"])
    parser.add_argument("--order", default="shuffled", choices=["shuffled", "rising"])
    parser.add_argument("--n", default="32768,131072")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    library = native.Library(device=native.CUDA if args.device == "cuda" else native.CPU)
    if args.only != "race":
        print("checks, seed", args.seed, json.dumps(check_all(library, args.device)), flush=True)
    if args.only == "checks" or args.device == "cpu":
        return
    rows = []
    for n in map(int, args.n.split(",")):
        for row in race(library, n, args.layers, args.runs, args.order):
            rows.append(row)
            print(
                " ".join(
                    f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
                )
            )
        sys.stdout.flush()
    if args.json:
        device = torch.cuda.get_device_name()
        Path(args.json).write_text(
            json.dumps({"device": device, "torch": torch.__version__, "rows": rows})
        )
    if not all(row["keeps_the_same"] for row in rows):
        sys.exit("Expected pages to keep what the packed cache keeps but found other indices")


if __name__ == "__main__":
    main()
