"""The real kvpress against libchunkkv: one process, the same arrays, the same threads, A B A B.

    "$(bench/versus/setup.sh)" bench/versus/kvpress.py [--threads 1,2] [--n 4096,8192,32768]
        [--dtype float32,bfloat16] [--chunk 10] [--keep 0.1] [--window 32] [--seconds 6] [--json FILE]

A: ChunkKVPress(SnapKVPress).compress of one layer in Llama-3-8B's shape. No model is needed: the
   projection of the hidden states is replaced by queries drawn beforehand; RoPE of the window's
   queries and all the rest run.
B: ckv_score, ckv_select, ckv_compact of keys and values, on the queries after RoPE.
   Like A, which returns new tensors, B moves rows out of place; in place is timed beside it.

Before a race the two must agree: token scores as kvpress pools them, and without pooling the
chunks. Else the script stops with exit code 1.
"""

import argparse
import json
import statistics
import sys
import time
import types
from pathlib import Path

# This folder has a kvpress.py of its own, which must not be imported in place of the package.
here = str(Path(__file__).resolve().parent)
sys.path = [entry for entry in sys.path if str(Path(entry).resolve()) != here]

import torch  # noqa: E402
import kvpress.presses.snapkv_press as snapkv_press  # noqa: E402
from kvpress import ChunkKVPress, SnapKVPress  # noqa: E402

sys.path.append(here)
import native  # noqa: E402

Q_HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
# Relative to the largest token score: the two round differently in the arrays' own type.
SCORE_TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}

# Seconds before each call: threads of the one before, which wait spinning, have gone to sleep.
PAUSE = 0.03


class Layer:
    """One layer's arrays and what kvpress wants around them."""

    def __init__(self, n, window, dtype):
        draw = lambda *shape: torch.randn(*shape).to(dtype)  # noqa: E731
        self.queries = draw(1, Q_HEADS, window, HEAD_DIM)
        self.keys = draw(1, KV_HEADS, n, HEAD_DIM)
        self.values = draw(1, KV_HEADS, n, HEAD_DIM)
        frequencies = 1.0 / (500000.0 ** (torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM))
        angles = torch.arange(n).float()[:, None] * frequencies[None]
        angles = torch.cat([angles, angles], -1)[None]
        self.rope = (angles.cos().to(dtype), angles.sin().to(dtype))
        cos, sin = (x[:, -window:].unsqueeze(1) for x in self.rope)
        rotated = snapkv_press.rotate_half(self.queries)
        self.rotated = ((self.queries * cos) + (rotated * sin)).contiguous()
        config = types.SimpleNamespace(num_attention_heads=Q_HEADS, num_key_value_heads=KV_HEADS)
        self.module = types.SimpleNamespace(config=config, head_dim=HEAD_DIM, layer_idx=0)
        self.hidden = torch.zeros(1, 1, 1, dtype=dtype).expand(1, n, 1)


class Peer:
    """ChunkKVPress of the real kvpress."""

    def __init__(self, layer, options, pool=5):
        self.layer = layer
        scorer = SnapKVPress(
            compression_ratio=1 - options.keep, window_size=options.window, kernel_size=pool
        )
        self.press = ChunkKVPress(press=scorer, chunk_length=options.chunk)

    def _arguments(self):
        layer = self.layer
        rope = {"position_embeddings": layer.rope}
        return layer.module, layer.hidden, layer.keys, layer.values, None, rope

    def scores(self):
        return self.press.press.score(*self._arguments())

    def compress(self):
        return self.press.compress(*self._arguments())


class Ours:
    """libchunkkv on the same arrays; outputs are made once, as an engine would."""

    def __init__(self, layer, options, library):
        self.library = library
        n = layer.keys.shape[2]
        budget = int(options.keep * n + 1e-9)
        self.params = library.params(
            method=native.CHUNKKV, budget=budget, window=options.window, chunk_size=options.chunk
        )
        self.scores = torch.zeros(1, 1, n)
        self.indices = torch.zeros(1, 1, n, dtype=torch.int32)
        self.lens = torch.zeros(1, dtype=torch.int32)
        # Copies, so that in-place moves leave the peer's arrays alone.
        self.own = [layer.keys.clone(), layer.values.clone()]
        self.outputs = [torch.empty_like(x[:, :, :budget]) for x in self.own]
        self.views = {
            "queries": native.query_view(layer.rotated),
            "keys": native.kv_view(layer.keys),
            "scores": native.scores_view(self.scores),
            "kept": native.kept_view(self.indices, self.lens),
            "from": [native.kv_view(layer.keys), native.kv_view(layer.values)],
            "own": [native.kv_view(x) for x in self.own],
            "to": [native.kv_view(x) for x in self.outputs],
        }

    def score(self):
        self.library.score(self.params, self.views["queries"], self.views["keys"], self.views["scores"])

    def select(self):
        self.library.select(self.params, self.views["scores"], self.views["kept"])

    def compress(self):
        self.score()
        self.select()
        for source, to in zip(self.views["from"], self.views["to"]):
            self.library.compact(source, to, self.views["kept"])

    def compress_in_place(self):
        self.score()
        self.select()
        for view in self.views["own"]:
            self.library.compact(view, None, self.views["kept"])


def agreement(layer, options, library):
    """Largest relative difference of pooled token scores; the part of the chunks that both chose."""
    n, window, chunk = layer.keys.shape[2], options.window, options.chunk
    theirs = Peer(layer, options).scores()[0, :, : n - window].float()
    scores = torch.zeros(1, KV_HEADS, n)
    params = library.params(method=native.SNAPKV, budget=n, window=window, pool_size=5)
    library.score(
        params, native.query_view(layer.rotated), native.kv_view(layer.keys), native.scores_view(scores)
    )
    ours = scores[0, :, : n - window]
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()

    # Whole chunks before the window, as many as we keep, by each one's unpooled token scores.
    run = Ours(layer, options, library)
    run.score()
    run.select()
    kept = run.indices[0, 0, : run.lens[0]].long()
    whole = (n - window) // chunk
    counts = torch.bincount(kept // chunk, minlength=n // chunk + 1)[:whole]
    mine = set((counts == chunk).nonzero().flatten().tolist())
    token = Peer(layer, options, pool=1).scores()[0].sum(0).float()
    by_chunk = token[: whole * chunk].view(whole, chunk).mean(-1)
    peers = set(by_chunk.topk(len(mine)).indices.tolist())
    return difference, len(mine & peers) / len(mine)


def race(layer, options, library):
    """Milliseconds of each, in turn: A B A B."""
    ours = Ours(layer, options, library)
    runners = {
        "kvpress": Peer(layer, options).compress,
        "chunkkv": ours.compress,
        "in_place": ours.compress_in_place,
    }
    times = {name: [] for name in runners}
    end = time.perf_counter() + options.seconds
    turn = 0
    while turn < 4 or time.perf_counter() < end:
        for name, run in runners.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            run()
            if turn > 0:  # the first warms up
                times[name].append((time.perf_counter() - start) * 1e3)
        turn += 1
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = lambda text: [int(x) for x in text.split(",")]  # noqa: E731
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--n", type=numbers, default=[4096, 8192, 32768])
    parser.add_argument("--dtype", type=lambda text: text.split(","), default=["float32"])
    parser.add_argument("--chunk", type=int, default=10)
    parser.add_argument("--keep", type=float, default=0.1)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    rows = []
    print("threads dtype         n | scores differ  same chunks | kvpress ms  chunkkv ms   in place |"
          "  ratio  (medians)")
    for name in options.dtype:
        dtype = getattr(torch, name)
        for n in options.n:
            layer = Layer(n, options.window, dtype)
            snapkv_press.get_prerope_query_states = lambda module, hidden, q=layer.queries: q
            for threads in options.threads:
                torch.set_num_threads(threads)
                library = native.Library(threads)
                difference, same = agreement(layer, options, library)
                print(f"{threads:7d} {name:9s} {n:6d} | {difference:13.1e} {100 * same:11.1f}% |", end="",
                      flush=True)
                # Half-precision probabilities round, so chunks at the border may change places.
                if difference > SCORE_TOLERANCE[dtype] or (same < 0.99 and dtype == torch.float32):
                    sys.exit("\nExpected token scores and chunks that agree but found others")
                times = race(layer, options, library)
                best = {key: min(value) for key, value in times.items()}
                middle = {key: statistics.median(value) for key, value in times.items()}
                row = {
                    "threads": threads, "dtype": name, "n": n, "chunk": options.chunk,
                    "keep": options.keep, "window": options.window, "score_difference": difference,
                    "same_chunks": same, "min_ms": best, "median_ms": middle,
                    "ratio": best["kvpress"] / best["chunkkv"],
                    "median_ratio": middle["kvpress"] / middle["chunkkv"],
                    "rounds": len(times["kvpress"]),
                }
                rows.append(row)
                print(f" {best['kvpress']:10.2f} {best['chunkkv']:11.2f} {best['in_place']:10.2f} |"
                      f" {row['ratio']:6.2f}  ({row['median_ratio']:.2f})", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps({
            "torch": torch.__version__, "kvpress": "0.5.5", "rows": rows,
        }, indent=2) + "\n")


if __name__ == "__main__":
    main()
