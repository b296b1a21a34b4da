#!/usr/bin/env bash
# Make a virtual environment with gpumpi in it: ci/venv.sh FOLDER EXTRAS [PYTHON]
set -euo pipefail
folder=$1 extras=$2 python=${3:-python3}
cd "$(dirname "$0")/.."

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "gpumpi needs Python >= 3.11; $python is $("$python" --version). " \
       "Next: make PYTHON=/path/to/python3.11 ..." >&2
  exit 1
}
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
# compat mode: a plain path instead of an import hook, which every rank would pay for
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
  --config-settings editable_mode=compat --editable ".[$extras]"
"$folder/bin/python" -m compileall -q gpumpi
