#!/bin/sh
# The environment of kvpress.py, outside the repository: nothing else of chunkkv needs it (7 GB).
set -eu
environment="${CHUNKKV_CACHE:-$HOME/.cache/chunkkv}/versus-venv"
here="$(cd "$(dirname "$0")" && pwd)"
[ -x "$environment/bin/python" ] || python3 -m venv "$environment"
"$environment/bin/pip" install --quiet --requirement "$here/requirements.txt"
echo "$environment/bin/python"
