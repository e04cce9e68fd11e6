"""KV caches in pages, as vLLM and its backends lay them out, and rows in them by slot."""

import torch

LAYOUTS = ("NHD", "HND", "fused")


class Pages:
    """Keys and values of one layer, [num_blocks, kv_heads, block_size, head_dim] by their strides.

    NHD: memory [num_blocks, block_size, kv_heads, head_dim]. HND: memory in the order of the shape.
    fused: memory [num_blocks, kv_heads, block_size, 2 * head_dim], a value after each key.
    """

    def __init__(self, layout, num_blocks, block_size, heads, dim, dtype, device):
        def memory(*shape):
            return torch.randn(shape, device=device, dtype=torch.float32).to(dtype)

        if layout == "fused":
            self.memory = [memory(num_blocks, heads, block_size, 2 * dim)]
            self.both = self.memory[0].split(dim, dim=-1)
        elif layout == "HND":
            self.memory = [memory(num_blocks, heads, block_size, dim) for _ in "kv"]
            self.both = self.memory
        else:
            self.memory = [memory(num_blocks, block_size, heads, dim) for _ in "kv"]
            self.both = [pages.transpose(1, 2) for pages in self.memory]
        self.block_size = block_size

    def write(self, which, blocks, rows):
        """rows [heads, n, dim] to the first n slots of a block table; which: 0 keys, 1 values."""
        at = torch.arange(rows.shape[1], device=rows.device)
        block, offset = blocks[at // self.block_size].long(), at % self.block_size
        self.both[which][block, :, offset] = rows.transpose(0, 1)

    def read(self, which, blocks, n):
        """The rows [heads, n, dim] in the first n slots of a block table."""
        at = torch.arange(n, device=blocks.device)
        block, offset = blocks[at // self.block_size].long(), at % self.block_size
        return self.both[which][block, :, offset].transpose(0, 1)

    def bits(self):
        """A copy of all memory, as integers: NaN equals itself there."""
        return [memory.view(torch.int16).clone() for memory in self.memory]


def shuffled_tables(lens, block_size, num_blocks, device):
    """A block table i32 [batch, max_blocks] of blocks drawn at random, none of them twice.

    Entries past a sequence's own blocks lead outside the pool: nobody may follow them.
    """
    counts = [-(-n // block_size) for n in lens]
    order = torch.randperm(num_blocks, device=device, dtype=torch.int32)
    table = torch.full(
        (len(lens), max(counts) + 1), num_blocks + 7, device=device, dtype=torch.int32
    )
    first = 0
    for row, count in zip(table, counts):
        row[:count] = order[first : first + count]
        first += count
    return table, order[first:]


def attention(queries, keys, values):
    """queries [q_heads, dim], keys and values [kv_heads, n, dim], in float32, to [q_heads, dim]."""
    heads, _, dim = keys.shape
    grouped = queries.float().reshape(heads, -1, dim)
    logits = grouped @ keys.float().transpose(1, 2) * dim**-0.5
    return (torch.softmax(logits, -1) @ values.float()).reshape(-1, dim)


def attention_over_pages(pages, queries, blocks, n):
    """The same for the first n slots of a block table, page by page with a running softmax."""
    heads, dim = pages.both[0].shape[1], pages.both[0].shape[3]
    grouped = queries.float().reshape(heads, -1, dim)
    most = torch.full((*grouped.shape[:2], 1), float("-inf"), device=queries.device)
    total, out = torch.zeros_like(most), torch.zeros_like(grouped)
    for first in range(0, n, pages.block_size):
        block, rows = blocks[first // pages.block_size], min(pages.block_size, n - first)
        keys, values = (both[block, :, :rows].float() for both in pages.both)
        logits = grouped @ keys.transpose(1, 2) * dim**-0.5
        new = torch.maximum(most, logits.amax(-1, keepdim=True))
        weights, shrink = torch.exp(logits - new), torch.exp(most - new)
        total = total * shrink + weights.sum(-1, keepdim=True)
        out, most = out * shrink + weights @ values, new
    return (out / total).reshape(-1, dim)
