"""What must hold of a compaction on pages, each on fresh random caches.

Llama's grouping (four query heads a kv head, 128 elements), float16 and bfloat16, all layouts of
pages.py, blocks of 16 and 32 tokens drawn at random from a pool; a ragged batch with lengths that
end inside a block, a sequence shorter than its budget, one shorter than the window, an empty one.

- Token scores are those of float64, and those of a packed batch.
- Kept chunks are the best ones, kept indices rise, lengths are min(budget, n).
- All memory of the pool is, bit by bit, what it was, but for the kept rows, which are the rows of
  the original keys and values. In place, into fresh blocks, and in ckv_compress of several layers.
- The blocks that are to be freed are the ones from ceil(kept / block_size) on: all bits of theirs
  are set (NaN), and float32 attention of random new queries over the pages is that over the kept
  rows of the original keys and values.
"""

import itertools

import native
import torch
from pages import LAYOUTS, Pages, attention, attention_over_pages, shuffled_tables

Q_HEADS, KV_HEADS, DIM, WINDOW, CHUNK, BUDGET, NUM_LAYERS = 32, 8, 128, 32, 10, 205, 3
LENGTHS = (1000, 517, 20, 0, 150, 2049, 333)
# Sums of 128 probabilities from f32 logits of up to 50: the logit's rounding and 600 f32 additions.
SCORE_LIMIT = 2e-3
# The same kernels on the same numbers; sums may go in another order.
PACKED_LIMIT = 1e-5
# f32 sums of up to 205 products of values of about 1, in another order.
ATTENTION_LIMIT = 1e-5


def expect(holds, what, *found):
    if not holds:
        raise AssertionError(f"Expected {what} but found {' '.join(map(str, found))}")


class Case:
    """Layers with pages of their own and one block table, and the same rows packed."""

    def __init__(self, library, device, layout, block_size, dtype):
        self.library, self.device, self.block_size = library, device, block_size
        self.packed_error = 0.0
        need = [-(-n // block_size) for n in LENGTHS]
        self.num_blocks = sum(need) + 40 + sum(-(-BUDGET // block_size) for _ in LENGTHS)
        self.table, self.spare = shuffled_tables(LENGTHS, block_size, self.num_blocks, device)
        self.lens = torch.tensor(LENGTHS, dtype=torch.int32, device=device)
        self.pages, self.dense, self.queries, self.views = [], [], [], []
        for _ in range(NUM_LAYERS):
            pages = Pages(layout, self.num_blocks, block_size, KV_HEADS, DIM, dtype, device)
            dense = [[self.draw(KV_HEADS, n, DIM).to(dtype) for n in LENGTHS] for _ in "kv"]
            for which, blocks in itertools.product((0, 1), range(len(LENGTHS))):
                pages.write(which, self.table[blocks], dense[which][blocks])
            self.pages.append(pages)
            self.dense.append(dense)
            self.queries.append(self.draw(len(LENGTHS), Q_HEADS, WINDOW, DIM).to(dtype))
            self.views.append(
                [
                    native.pages_view(both, self.table, self.lens, max(LENGTHS))
                    for both in pages.both
                ]
            )
        self.params = library.params(
            method=native.CHUNKKV, window=WINDOW, chunk_size=CHUNK, budget=BUDGET
        )
        shape = (NUM_LAYERS, len(LENGTHS), 1, BUDGET)
        self.indices = torch.full(shape, -1, dtype=torch.int32, device=device)
        self.kept_lens = torch.full(shape[:2], -1, dtype=torch.int32, device=device)
        self.kept = [native.kept_view(*kept) for kept in zip(self.indices, self.kept_lens)]

    def draw(self, *shape):
        return torch.randn(shape, device=self.device)

    def kept_of(self, layer, b):
        return self.indices[layer, b, 0, : self.kept_lens[layer, b]].long()

    def score(self, layer):
        """Scores on the pages; what they are off by, relative to float64."""
        scores = self.draw(len(LENGTHS), 1, max(LENGTHS))
        view = native.scores_view(scores, self.lens)
        queries = native.query_view(self.queries[layer])
        self.library.score(self.params, queries, self.views[layer][0], view)
        self.library.finish()
        packed = torch.zeros_like(scores)
        batch = torch.zeros(len(LENGTHS), KV_HEADS, max(LENGTHS), DIM, device=self.device)
        batch = batch.to(self.dense[layer][0][0])
        for keys, rows in zip(batch, self.dense[layer][0]):
            keys[:, : rows.shape[1]] = rows
        same = native.scores_view(packed, self.lens)
        self.library.score(self.params, queries, native.kv_view(batch, self.lens), same)
        self.library.finish()
        worst = 0.0
        for b, n in enumerate(LENGTHS):
            apart = (packed[b, 0, :n] - scores[b, 0, :n]).abs() / packed[b, 0, :n].clamp_min(1e-30)
            self.packed_error = max(self.packed_error, apart.max().item() if n else 0.0)
            if n <= WINDOW:
                continue
            keys, mine = self.dense[layer][0][b], scores[b, 0, :n]
            exact = scores_in_float64(self.queries[layer][b], keys)
            worst = max(
                worst, ((mine - exact).abs() / exact.clamp_min(1e-30))[: n - WINDOW].max().item()
            )
            expect(not mine[n - WINDOW :].any(), "no scores in the window", mine[n - WINDOW :])
        expect(self.packed_error < PACKED_LIMIT, "scores of packed keys", self.packed_error)
        expect(worst < SCORE_LIMIT, f"scores within {SCORE_LIMIT} of float64", worst)
        self.library.select(self.params, view, self.kept[layer])
        self.library.finish()
        return worst

    def check_choice(self, layer):
        expect(
            self.kept_lens[layer].tolist() == [min(n, BUDGET) for n in LENGTHS],
            "min(budget, n) kept",
            self.kept_lens[layer].tolist(),
        )
        for b, n in enumerate(LENGTHS):
            kept = self.kept_of(layer, b)
            expect((kept[1:] > kept[:-1]).all(), "rising indices", kept)
            if n <= BUDGET:
                continue
            window = torch.arange(n - WINDOW, n, device=self.device)
            expect(torch.equal(kept[-WINDOW:], window), "the window to stay", kept[-WINDOW:])
            exact = scores_in_float64(self.queries[layer][b], self.dense[layer][0][b])
            chunks = torch.split(exact[: n - WINDOW], CHUNK)
            whole = torch.bincount(kept[:-WINDOW] // CHUNK, minlength=len(chunks))
            sums = torch.stack([chunk.sum() for chunk in chunks])
            size = torch.tensor([len(chunk) for chunk in chunks], device=self.device)
            chosen, worst = whole == size, sums[whole == size].min()
            best = sums[~chosen].max()
            expect(worst >= best * (1 - 2 * SCORE_LIMIT), "the best chunks", b, worst, best)

    def expected(self, layer, before, tables):
        """The pool's bits after a compaction to the first slots of `tables`."""
        pages = self.pages[layer]
        after = pages.bits()
        for memory, bits in zip(pages.memory, before):
            memory.view(torch.int16).copy_(bits)
        for which, b in itertools.product((0, 1), range(len(LENGTHS))):
            rows = self.dense[layer][which][b][:, self.kept_of(layer, b)]
            pages.write(which, tables[b], rows)
        wanted = pages.bits()
        for memory, bits in zip(pages.memory, after):
            memory.view(torch.int16).copy_(bits)
        return wanted

    def check_moved(self, layer, before, tables):
        wanted = self.expected(layer, before, tables)
        for bits, want in zip(self.pages[layer].bits(), wanted):
            expect(torch.equal(bits, want), "kept rows there, and nothing else touched", layer)
        for which, b in itertools.product((0, 1), range(len(LENGTHS))):
            rows = self.dense[layer][which][b][:, self.kept_of(layer, b)]
            found = self.pages[layer].read(which, tables[b], rows.shape[1])
            expect(
                torch.equal(found.contiguous().view(torch.int16), rows.view(torch.int16)),
                "kept rows",
                b,
            )

    def check_attention(self, layer, tables):
        """After the freed blocks are filled with NaN; the largest difference."""
        pages, worst, freed = self.pages[layer], 0.0, 0
        for b, n in enumerate(LENGTHS):
            stay = -(-int(self.kept_lens[layer, b]) // self.block_size)
            tail = self.table[b, stay : -(-n // self.block_size)].long()
            freed += len(tail)
            for both in pages.both:
                both[tail] = float("nan")
        for b in range(len(LENGTHS)):
            kept, queries = self.kept_of(layer, b), self.draw(Q_HEADS, DIM)
            if len(kept) == 0:
                continue
            keys, values = (self.dense[layer][which][b][:, kept] for which in (0, 1))
            found = attention_over_pages(pages, queries, tables[b], len(kept))
            worst = max(worst, (found - attention(queries, keys, values)).abs().max().item())
        expect(worst <= ATTENTION_LIMIT, f"attention within {ATTENTION_LIMIT}", worst)
        blocks = [-(-n // self.block_size) - -(-min(n, BUDGET) // self.block_size) for n in LENGTHS]
        expect(freed == sum(blocks), f"{sum(blocks)} blocks to free", freed)
        return worst, freed

    def run(self):
        # Layer 0, stage by stage: first to fresh blocks of the same pool, then in place.
        score = self.score(0)
        self.check_choice(0)
        count = -(-BUDGET // self.block_size)
        fresh = self.spare[: count * len(LENGTHS)].reshape(len(LENGTHS), count)
        before = self.pages[0].bits()
        for both, view in zip(self.pages[0].both, self.views[0]):
            to = native.pages_view(both, fresh, self.lens, max(LENGTHS))
            to.kv_len, to.kv_lens = BUDGET, None
            self.library.compact(view, to, self.kept[0])
        self.library.finish()
        self.check_moved(0, before, fresh)
        before = self.pages[0].bits()
        for view in self.views[0]:
            self.library.compact(view, None, self.kept[0])
        self.library.finish()
        self.check_moved(0, before, self.table)
        worst, freed = self.check_attention(0, self.table)
        # The others in one call.
        before = [pages.bits() for pages in self.pages]
        array = native.layer_array(
            [
                (native.query_view(queries), *views)
                for queries, views in zip(self.queries[1:], self.views[1:])
            ]
        )
        kept = (native.Kept * (NUM_LAYERS - 1))(*self.kept[1:])
        self.library.compress(self.params, array, kept)
        self.library.finish()
        for layer in range(1, NUM_LAYERS):
            self.check_choice(layer)
            self.check_moved(layer, before[layer], self.table)
            worst = max(worst, self.check_attention(layer, self.table)[0])
        return score, self.packed_error, worst, freed


def scores_in_float64(queries, keys):
    """queries [q_heads, window, dim], keys [kv_heads, n, dim] to [n]."""
    n = keys.shape[1]
    rows = queries.double().reshape(KV_HEADS, -1, DIM)
    logits = rows @ keys.double().transpose(-1, -2) * DIM**-0.5
    row = torch.arange(rows.shape[1], device=keys.device)[:, None] % WINDOW
    hidden = torch.arange(n, device=keys.device)[None] > n - WINDOW + row
    return torch.softmax(logits.masked_fill(hidden, float("-inf")), -1).sum((0, 1))


def check_all(library, device):
    """Runs every case; the worst errors, or an AssertionError."""
    score = packed = worst = freed = 0.0
    cases = list(itertools.product(LAYOUTS, (16, 32), (torch.float16, torch.bfloat16)))
    for case in cases:
        found = Case(library, device, *case).run()
        score, packed, worst = map(max, (score, packed, worst), found)
        freed += found[3]
    return {
        "cases": len(cases),
        "score_relative_error": score,
        "score_to_packed": packed,
        "attention_error": worst,
        "blocks_freed_of_a_layer": int(freed),
    }
