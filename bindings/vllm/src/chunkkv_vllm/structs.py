"""chunkkv.h in ctypes: its numbers and structs, nothing else. A test compares both."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int32, c_int64, c_uint32, c_void_p

ABI_VERSION = 2

OK = 0
CPU, CUDA = 0, 1
F32, F16, BF16 = 0, 1, 2
METHODS = {"full": 0, "streaming_llm": 1, "snapkv": 2, "chunkkv": 3}
FILL_EXACT = 0


class Struct(ctypes.Structure):
    """A struct that begins with its own size."""

    def __init__(self, **values: object) -> None:
        super().__init__(struct_size=ctypes.sizeof(type(self)), **values)


class Params(Struct):
    """ckv_params: the method and its settings."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("method", c_int32),
        ("budget", c_int32),
        ("window", c_int32),
        ("chunk_size", c_int32),
        ("chunk_reduce", c_int32),
        ("fill", c_int32),
        ("layer_reuse", c_int32),
        ("pool_size", c_int32),
        ("num_sinks", c_int32),
        ("scale", c_float),
        ("logit_softcap", c_float),
        ("spread", c_int32),
    )


class QueryView(Struct):
    """ckv_query_view: queries of the observation window."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("dtype", c_int32),
        ("device", c_int32),
        ("batch", c_int32),
        ("num_q_heads", c_int32),
        ("window", c_int32),
        ("head_dim", c_int32),
        ("reserved", c_int32),
        ("data", c_void_p),
        ("size_bytes", c_int64),
        ("stride_batch", c_int64),
        ("stride_head", c_int64),
        ("stride_row", c_int64),
        ("log_sum_exp", c_void_p),
    )


class KvView(Struct):
    """ckv_kv_view: keys or values of one layer, strided or paged."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("dtype", c_int32),
        ("device", c_int32),
        ("batch", c_int32),
        ("num_kv_heads", c_int32),
        ("head_dim", c_int32),
        ("kv_len", c_int32),
        ("block_size", c_int32),
        ("data", c_void_p),
        ("size_bytes", c_int64),
        ("stride_batch", c_int64),
        ("stride_head", c_int64),
        ("stride_token", c_int64),
        ("stride_block", c_int64),
        ("kv_lens", c_void_p),
        ("block_table", c_void_p),
        ("max_blocks", c_int32),
        ("num_blocks", c_int32),
    )


class Scores(Struct):
    """ckv_scores: token scores, f32 [batch, num_heads, kv_len]."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("batch", c_int32),
        ("num_heads", c_int32),
        ("kv_len", c_int32),
        ("kv_lens", c_void_p),
        ("data", c_void_p),
        ("count", c_int64),
    )


class Kept(Struct):
    """ckv_kept: kept indices, i32 [batch, num_heads, capacity]."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("batch", c_int32),
        ("num_heads", c_int32),
        ("capacity", c_int32),
        ("indices", c_void_p),
        ("lens", c_void_p),
    )


class ContextParams(Struct):
    """ckv_context_params."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("num_threads", c_int32),
        ("isa", c_int32),
        ("device", c_int32),
        ("device_index", c_int32),
        ("reserved", c_int32),
    )


# Functions used here: result, arguments.
FUNCTIONS = {
    "ckv_abi_version": (c_uint32, ()),
    "ckv_version": (ctypes.c_char_p, ()),
    "ckv_status_name": (ctypes.c_char_p, (c_int32,)),
    "ckv_context_default_params": (None, (POINTER(ContextParams),)),
    "ckv_context_create": (c_int32, (POINTER(ContextParams), POINTER(c_void_p))),
    "ckv_context_free": (None, (c_void_p,)),
    "ckv_context_error": (ctypes.c_char_p, (c_void_p,)),
    "ckv_device_describe": (c_int32, (c_int32, c_int32, ctypes.c_char_p, c_int64)),
    "ckv_context_set_stream": (c_int32, (c_void_p, c_void_p)),
    "ckv_context_finish": (c_int32, (c_void_p,)),
    "ckv_default_params": (None, (POINTER(Params),)),
    "ckv_budget_for": (c_int32, (ctypes.c_double, c_int32)),
    "ckv_score_heads": (c_int32, (POINTER(Params), c_int32)),
    "ckv_kept_heads": (c_int32, (POINTER(Params), c_int32)),
    "ckv_kept_capacity": (c_int32, (POINTER(Params), c_int32)),
    "ckv_score": (
        c_int32,
        (c_void_p, POINTER(Params), POINTER(QueryView), POINTER(KvView), POINTER(Scores)),
    ),
    "ckv_select": (c_int32, (c_void_p, POINTER(Params), POINTER(Scores), POINTER(Kept))),
    "ckv_compact": (c_int32, (c_void_p, POINTER(KvView), POINTER(KvView), POINTER(Kept))),
}
