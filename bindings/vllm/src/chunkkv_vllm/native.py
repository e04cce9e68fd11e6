"""libchunkkv on torch tensors, through ctypes: nothing is copied, pointers go to C as they are."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p

import torch

from . import structs
from .library import NativeError, library_path, load
from .structs import ContextParams, Kept, KvView, Params, QueryView, Scores

DTYPES = {torch.float32: structs.F32, torch.float16: structs.F16, torch.bfloat16: structs.BF16}


def kv_view(rows: torch.Tensor, blocks: torch.Tensor | None = None, kv_len: int = 0) -> KvView:
    """Keys or values of one sequence; the last dimension is contiguous.

    rows: (kv_len, num_kv_heads, head_dim), or with `blocks`, i32 (max_blocks,), on the same device,
    pages (num_blocks, num_kv_heads, block_size, head_dim), of which kv_len tokens are valid.
    """
    if rows.stride(-1) != 1:
        raise NativeError(f"Expected contiguous rows but found strides {rows.stride()}")
    unit = rows.element_size()
    strides = [stride * unit for stride in rows.stride()]
    span = sum((size - 1) * stride for size, stride in zip(rows.shape, strides, strict=True)) + unit
    view = KvView(
        dtype=DTYPES[rows.dtype],
        device=device_of(rows),
        batch=1,
        head_dim=rows.shape[-1],
        data=rows.data_ptr(),
        size_bytes=span,
    )
    if blocks is None:
        view.kv_len, view.num_kv_heads = rows.shape[0], rows.shape[1]
        view.stride_token, view.stride_head = strides[0], strides[1]
        view.stride_batch = strides[0] * rows.shape[0]
        return view
    view.kv_len, view.num_kv_heads, view.block_size = kv_len, rows.shape[1], rows.shape[2]
    view.stride_block, view.stride_head, view.stride_token = strides[0], strides[1], strides[2]
    view.block_table, view.max_blocks = blocks.data_ptr(), blocks.shape[0]
    view.num_blocks = rows.shape[0]
    return view


def device_of(tensor: torch.Tensor) -> int:
    """The library's number of the device that a tensor is on."""
    return structs.CUDA if tensor.is_cuda else structs.CPU


class Library:
    """An open libchunkkv with one context, for one device."""

    def __init__(self, device: torch.device, path: str | None = None, num_threads: int = 0) -> None:
        self.path = library_path(path)
        self._library = load(self.path)
        self._context = c_void_p()
        self._cuda = device if device.type == "cuda" else None
        params = ContextParams()
        self._library.ckv_context_default_params(byref(params))
        params.num_threads = num_threads
        params.device, params.device_index = structs.CPU, 0
        if self._cuda:
            params.device, params.device_index = structs.CUDA, device.index or 0
        status = self._library.ckv_context_create(byref(params), byref(self._context))
        if status != structs.OK:
            text = ctypes.create_string_buffer(256)
            self._library.ckv_device_describe(params.device, params.device_index, text, 256)
            raise NativeError(
                f"Expected libchunkkv to work on {device} but {self._name(status)}: "
                f"{text.value.decode()}"
            )

    def close(self) -> None:
        """Frees the context; a second call does nothing."""
        if self._context:
            self._library.ckv_context_free(self._context)
            self._context = c_void_p()

    @property
    def version(self) -> str:
        """The library's version, such as 0.1.0."""
        return self._library.ckv_version().decode()

    def params(self, **values: float) -> Params:
        """The library's defaults with these fields set."""
        params = Params()
        self._library.ckv_default_params(byref(params))
        for name, value in values.items():
            setattr(params, name, value)
        return params

    def budget_for(self, keep: float, kv_len: int) -> int:
        """The budget in tokens for a ratio kept in (0, 1]."""
        return self._library.ckv_budget_for(keep, kv_len)

    def score_heads(self, params: Params, num_kv_heads: int) -> int:
        """Heads of token scores; 0: the method needs none."""
        return self._library.ckv_score_heads(byref(params), num_kv_heads)

    def kept_heads(self, params: Params, num_kv_heads: int) -> int:
        """Heads of kept indices."""
        return self._library.ckv_kept_heads(byref(params), num_kv_heads)

    def score(
        self, params: Params, queries: torch.Tensor, keys: KvView, scores: torch.Tensor
    ) -> None:
        """queries (window, num_q_heads, head_dim) and keys to scores f32 (heads, kv_len)."""
        unit = queries.element_size()
        view = QueryView(
            dtype=DTYPES[queries.dtype],
            device=device_of(queries),
            batch=1,
            num_q_heads=queries.shape[1],
            window=queries.shape[0],
            head_dim=queries.shape[2],
            data=queries.data_ptr(),
            size_bytes=queries.numel() * unit,
            stride_batch=queries.numel() * unit,
            stride_head=queries.stride(1) * unit,
            stride_row=queries.stride(0) * unit,
        )
        out = self._scores(scores[None])
        self._run("ckv_score", byref(params), byref(view), byref(keys), byref(out))

    def select(self, params: Params, scores: torch.Tensor, heads: int, kept: int) -> torch.Tensor:
        """Scores f32 (batch, score_heads, kv_len) to indices i32 (batch, heads, kept).

        Each sequence of the batch, here a layer, has to keep exactly `kept` tokens.
        """
        batch, _, kv_len = scores.shape
        capacity = self._library.ckv_kept_capacity(byref(params), kv_len)
        indices = torch.empty((batch, heads, capacity), dtype=torch.int32, device=scores.device)
        lens = torch.zeros(batch, dtype=torch.int32, device=scores.device)
        out = self._kept(indices, lens)
        self._run("ckv_select", byref(params), byref(self._scores(scores)), byref(out))
        found = lens.tolist()
        if any(number != kept for number in found):
            raise NativeError(f"Expected {kept} tokens kept in each layer but found {found}")
        return indices[:, :, :kept]

    def compact(self, source: KvView, target: KvView | None, indices: torch.Tensor) -> None:
        """Moves row indices[h, i] of `source` to row i of `target`; None: in place."""
        lens = torch.full((1,), indices.shape[1], dtype=torch.int32, device=indices.device)
        kept = self._kept(indices[None], lens)
        to = byref(target) if target is not None else None
        self._run("ckv_compact", byref(source), to, byref(kept))

    @staticmethod
    def _scores(scores: torch.Tensor) -> Scores:
        batch, heads, kv_len = scores.shape
        return Scores(
            batch=batch,
            num_heads=heads,
            kv_len=kv_len,
            data=scores.data_ptr(),
            count=scores.numel(),
        )

    @staticmethod
    def _kept(indices: torch.Tensor, lens: torch.Tensor) -> Kept:
        batch, heads, capacity = indices.shape
        return Kept(
            batch=batch,
            num_heads=heads,
            capacity=capacity,
            indices=indices.data_ptr(),
            lens=lens.data_ptr(),
        )

    def finish(self) -> None:
        """Waits for queued work, and raises what kernels found. On the CPU nothing is queued."""
        self._run("ckv_context_finish")

    def _run(self, name: str, *arguments: object) -> None:
        if self._cuda:
            # In one stream with torch's work, so that neither waits for the other.
            stream = torch.cuda.current_stream(self._cuda).cuda_stream
            self._library.ckv_context_set_stream(self._context, stream)
        status = getattr(self._library, name)(self._context, *arguments)
        if status != structs.OK:
            text = self._library.ckv_context_error(self._context)
            raise NativeError(f"{name}: {self._name(status)}: {(text or b'').decode()}")

    def _name(self, status: int) -> str:
        return (self._library.ckv_status_name(status) or b"unknown status").decode()
