"""libchunkkv on torch tensors by ctypes: the few structs that a race needs."""

import ctypes as c
import os
from pathlib import Path

LIBRARY = Path(
    os.environ.get("CHUNKKV_LIBRARY")
    or Path(__file__).resolve().parents[2] / "build" / "libchunkkv.so"
)
CPU, CUDA = 0, 1
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
SNAPKV, CHUNKKV = 2, 3
I32, I64 = c.c_int32, c.c_int64


class Params(c.Structure):
    _fields_ = [("struct_size", c.c_uint32)] + [
        (name, I32)
        for name in "method budget window chunk_size chunk_reduce fill layer_reuse pool_size num_sinks".split()
    ] + [("scale", c.c_float), ("logit_softcap", c.c_float), ("spread", I32)]


class QueryView(c.Structure):
    _fields_ = [("struct_size", c.c_uint32)] + [
        (name, I32) for name in "dtype device batch num_q_heads window head_dim reserved".split()
    ] + [("data", c.c_void_p)] + [
        (name, I64) for name in "size_bytes stride_batch stride_head stride_row".split()
    ] + [("log_sum_exp", c.c_void_p)]


class KvView(c.Structure):
    _fields_ = [("struct_size", c.c_uint32)] + [
        (name, I32) for name in "dtype device batch num_kv_heads head_dim kv_len block_size".split()
    ] + [("data", c.c_void_p)] + [
        (name, I64)
        for name in "size_bytes stride_batch stride_head stride_token stride_block".split()
    ] + [("kv_lens", c.c_void_p), ("block_table", c.c_void_p), ("max_blocks", I32), ("num_blocks", I32)]


class Scores(c.Structure):
    _fields_ = [("struct_size", c.c_uint32)] + [
        (name, I32) for name in "batch num_heads kv_len".split()
    ] + [("kv_lens", c.c_void_p), ("data", c.c_void_p), ("count", I64)]


class Kept(c.Structure):
    _fields_ = [("struct_size", c.c_uint32)] + [
        (name, I32) for name in "batch num_heads capacity".split()
    ] + [("indices", c.c_void_p), ("lens", c.c_void_p)]


class Layer(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32), ("reserved", I32), ("queries", c.POINTER(QueryView)),
        ("keys", c.POINTER(KvView)), ("values", c.POINTER(KvView)),
    ]


class ContextParams(c.Structure):
    _fields_ = [("struct_size", c.c_uint32)] + [
        (name, I32) for name in "num_threads isa device device_index reserved".split()
    ]


def filled(struct, **values):
    return struct(struct_size=c.sizeof(struct), **values)


class Library:
    """One context. Tensors are [1, heads, tokens, head_dim], packed, and stay with the caller."""

    def __init__(self, threads=0, device=CPU):
        self._library = c.CDLL(str(LIBRARY))
        self._library.ckv_context_error.restype = c.c_char_p
        self._library.ckv_context_error.argtypes = [c.c_void_p]
        self._context = c.c_void_p()
        params = filled(ContextParams, num_threads=threads, isa=-1, device=device)
        self._check(self._library.ckv_context_create(c.byref(params), c.byref(self._context)))

    def _check(self, status):
        if status != 0:
            error = self._library.ckv_context_error(self._context) if self._context else b""
            raise RuntimeError(f"Expected status 0 but found {status}: {(error or b'').decode()}")

    def _call(self, name, *structs):
        function = getattr(self._library, name)
        self._check(function(self._context, *(s if s is None else c.byref(s) for s in structs)))

    def params(self, **values):
        params = Params()
        self._library.ckv_default_params(c.byref(params))
        for name, value in values.items():
            setattr(params, name, value)
        return params

    def score(self, params, queries, keys, scores):
        self._call("ckv_score", params, queries, keys, scores)

    def score_chunks(self, params, queries, keys, chunk_scores):
        """chunk_scores: a tensor of [batch, chunks of the longest sequence]."""
        function = self._library.ckv_score_chunks
        self._check(function(
            self._context, c.byref(params), c.byref(queries), c.byref(keys),
            c.c_void_p(chunk_scores.data_ptr()), I64(chunk_scores.numel()),
        ))

    def select(self, params, scores, kept):
        self._call("ckv_select", params, scores, kept)

    def compact(self, view, to, kept):
        self._call("ckv_compact", view, to, kept)

    def compress(self, params, layers, kept):
        """All layers in place. kept: an array of as many."""
        function = self._library.ckv_compress
        self._check(function(self._context, c.byref(params), layers, len(layers), kept))

    def select_layers(self, params, layers, kept):
        """The first half of compress."""
        function = self._library.ckv_select_layers
        self._check(function(self._context, c.byref(params), layers, len(layers), kept))

    def compact_layers(self, layers, kept):
        """The second half."""
        function = self._library.ckv_compact_layers
        self._check(function(self._context, layers, len(layers), kept))

    # On a GPU: what a caller's graph needs.
    def set_stream(self, stream):
        self._check(self._library.ckv_context_set_stream(self._context, c.c_void_p(stream)))

    def workspace_best(self, params, layers):
        size = I64()
        self._check(
            self._library.ckv_workspace_best(
                self._context, c.byref(params), layers, len(layers), c.byref(size)
            )
        )
        return size.value

    def set_workspace(self, tensor):
        self._check(
            self._library.ckv_context_set_workspace(
                self._context, c.c_void_p(tensor.data_ptr()), I64(tensor.numel())
            )
        )

    def finish(self):
        self._check(self._library.ckv_context_finish(self._context))


def layer_array(layers):
    """[(queries, keys, values)] of views to the array that ckv_compress takes; keep the views."""
    return (Layer * len(layers))(*(
        filled(Layer, queries=c.pointer(q), keys=c.pointer(k), values=c.pointer(v))
        for q, k, v in layers
    ))


def _device(tensor):
    return CUDA if tensor.is_cuda else CPU


def _dtype(tensor):
    return DTYPES[str(tensor.dtype).removeprefix("torch.")]


def query_view(tensor):
    batch, heads, window, dim = tensor.shape
    row = dim * tensor.element_size()
    return filled(
        QueryView, dtype=_dtype(tensor), device=_device(tensor), batch=batch, num_q_heads=heads, window=window, head_dim=dim,
        data=tensor.data_ptr(), size_bytes=batch * heads * window * row, stride_row=row,
        stride_head=window * row, stride_batch=heads * window * row,
    )


def kv_view(tensor, lens=None):
    """lens: i32 [batch], where sequences are shorter; stays with the caller."""
    batch, heads, tokens, dim = tensor.shape
    row = dim * tensor.element_size()
    return filled(
        KvView, dtype=_dtype(tensor), device=_device(tensor), batch=batch, num_kv_heads=heads, head_dim=dim, kv_len=tokens,
        data=tensor.data_ptr(), size_bytes=batch * heads * tokens * row, stride_token=row,
        stride_head=tokens * row, stride_batch=heads * tokens * row,
        kv_lens=None if lens is None else lens.data_ptr(),
    )


def pages_view(pages, table, lens, kv_len):
    """pages [num_blocks, heads, block_size, head_dim], whatever the strides; table i32 [batch,
    max_blocks] and lens i32 [batch], of which kv_len is the most, stay with the caller."""
    num_blocks, heads, block_size, dim = pages.shape
    size = pages.element_size()
    block, head, token, _ = (stride * size for stride in pages.stride())
    last = sum((n - 1) * stride for n, stride in zip(pages.shape, pages.stride())) + 1
    return filled(
        KvView, dtype=_dtype(pages), device=_device(pages), batch=len(table), num_kv_heads=heads, head_dim=dim,
        kv_len=kv_len, block_size=block_size, data=pages.data_ptr(), size_bytes=last * size,
        stride_block=block, stride_head=head, stride_token=token, kv_lens=lens.data_ptr(),
        block_table=table.data_ptr(), max_blocks=table.shape[1], num_blocks=num_blocks,
    )


def scores_view(tensor, lens=None):
    batch, heads, tokens = tensor.shape
    return filled(
        Scores, batch=batch, num_heads=heads, kv_len=tokens, data=tensor.data_ptr(),
        count=batch * heads * tokens, kv_lens=None if lens is None else lens.data_ptr(),
    )


def kept_view(indices, lens):
    batch, heads, capacity = indices.shape
    return filled(
        Kept, batch=batch, num_heads=heads, capacity=capacity, indices=indices.data_ptr(),
        lens=lens.data_ptr(),
    )
