"""structs.py against chunkkv.h, line by line, and the library that is loaded."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest
import torch

from chunkkv_vllm import native, structs
from chunkkv_vllm.native import Library, NativeError

HEADER = Path(__file__).resolve().parents[2] / "csrc" / "include" / "chunkkv.h"
TEXT = re.sub(r"//.*", "", HEADER.read_text())
TYPES = {
    "uint32_t": ctypes.c_uint32,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "float": ctypes.c_float,
}
STRUCTS = {
    "ckv_params": structs.Params,
    "ckv_query_view": structs.QueryView,
    "ckv_kv_view": structs.KvView,
    "ckv_scores": structs.Scores,
    "ckv_kept": structs.Kept,
    "ckv_context_params": structs.ContextParams,
}


def _fields(struct: str) -> list[tuple[str, type]]:
    body = re.search(rf"typedef struct {struct} \{{(.*?)\}} {struct};", TEXT, re.S)
    assert body, f"{struct} is not in chunkkv.h"
    found = []
    for declaration in body[1].split(";"):
        words = declaration.replace("const", "").split()
        if not words:
            continue
        pointer = "*" in declaration
        found.append((words[-1].lstrip("*"), ctypes.c_void_p if pointer else TYPES[words[0]]))
    return found


@pytest.mark.parametrize("name", STRUCTS)
def test_structs_have_the_fields_of_the_header(name: str) -> None:
    assert list(STRUCTS[name]._fields_) == _fields(name)


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("CKV_F32", structs.F32),
        ("CKV_F16", structs.F16),
        ("CKV_BF16", structs.BF16),
        ("CKV_CPU", structs.CPU),
        ("CKV_CUDA", structs.CUDA),
        ("CKV_OK", structs.OK),
        ("CKV_FILL_EXACT", structs.FILL_EXACT),
        *((f"CKV_METHOD_{name.upper()}", number) for name, number in structs.METHODS.items()),
    ],
)
def test_numbers_are_those_of_the_header(constant: str, value: int) -> None:
    found = re.search(rf"\b{constant} = (-?\d+)", TEXT)
    assert found and int(found[1]) == value


def test_the_abi_version_is_that_of_the_header() -> None:
    found = re.search(r"#define CKV_ABI_VERSION (\d+)", TEXT)
    assert found and int(found[1]) == structs.ABI_VERSION


@pytest.mark.parametrize("name", structs.FUNCTIONS)
def test_functions_take_as_many_arguments_as_in_the_header(name: str) -> None:
    found = re.search(rf"\b{name}\(([^)]*)\)", TEXT)
    assert found, f"{name} is not in chunkkv.h"
    given = [argument for argument in found[1].split(",") if argument.strip() != "void"]
    assert len(structs.FUNCTIONS[name][1]) == len(given)


def test_a_library_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = structs.ABI_VERSION
    monkeypatch.setattr(structs, "ABI_VERSION", 99)
    with pytest.raises(NativeError, match=rf"ABI version 99 but found {found}"):
        native.load(native.library_path())


def test_a_missing_library_is_named() -> None:
    with pytest.raises(NativeError, match="libchunkkv at /nowhere.so but found no such file"):
        native.library_path("/nowhere.so")


def test_errors_carry_the_librarys_text() -> None:
    library = Library(torch.device("cpu"), num_threads=1)
    rows, params = torch.zeros(8, 1, 4), library.params(budget=0, window=2)
    with pytest.raises(NativeError, match="ckv_score: invalid_argument: .*budget"):
        library.score(params, torch.zeros(2, 1, 4), native.kv_view(rows), torch.zeros(1, 8))
    library.close()
    library.close()
