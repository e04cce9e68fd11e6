"""Where libchunkkv is, and opening it; needs neither torch nor vLLM."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from . import structs

LIBRARY_VARIABLE = "CHUNKKV_LIBRARY"


class NativeError(RuntimeError):
    """A call to libchunkkv failed; the text says what was expected and found."""


def library_path(chosen: str | None = None) -> Path:
    """The library to load: `chosen`, CHUNKKV_LIBRARY, beside this module, or a clone's build/."""
    named = chosen or os.environ.get(LIBRARY_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise NativeError(f"Expected libchunkkv at {named} but found no such file")
        return Path(named)
    name = {"win32": "chunkkv.dll", "darwin": "libchunkkv.dylib"}.get(sys.platform, "libchunkkv.so")
    here = Path(__file__).resolve()
    places = [here.parent / name, *(up / "build" / name for up in here.parents)]
    for place in places:
        if place.is_file():
            return place
    raise NativeError(
        f"Expected {name} beside {here.parent} or in a clone's build folder but found none: "
        f"set {LIBRARY_VARIABLE}"
    )


def load(path: Path) -> ctypes.CDLL:
    """Opens the library and types its functions, if it speaks this module's ABI version."""
    try:
        library = ctypes.CDLL(str(path))
        library.ckv_abi_version.restype = ctypes.c_uint32
    except (OSError, AttributeError) as error:
        raise NativeError(f"Expected libchunkkv at {path} but {error}") from error
    found = library.ckv_abi_version()
    if found != structs.ABI_VERSION:
        raise NativeError(
            f"Expected libchunkkv of ABI version {structs.ABI_VERSION} but found {found} at {path}"
        )
    for name, (result, arguments) in structs.FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
