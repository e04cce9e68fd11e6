"""The wheel with libchunkkv inside: of one platform, of any Python 3."""

from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel

PACKAGE = Path(__file__).parent / "src" / "chunkkv_vllm"


class WithLibrary(Distribution):
    """Belongs to one platform where `deno task package` has put a library into the package."""

    def has_ext_modules(self) -> bool:
        return any(path.suffix in (".so", ".dylib", ".dll") for path in PACKAGE.iterdir())


class AnyPython(bdist_wheel):
    """The library is no extension module: ctypes opens it."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(distclass=WithLibrary, cmdclass={"bdist_wheel": AnyPython})
