#!/usr/bin/env bash
# The start and the end of a job on other CPythons: their threads at exit differ.
# ci/pythons.sh [PYTHON ...]; without arguments those of 3.12 and 3.13 that are found
# on PATH or under pyenv. Says which it has not found.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    if "$candidate" -c '' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
}

pythons=("$@")
if [ $# -eq 0 ]; then
  for version in 3.12 3.13; do
    found=$(find_python "$version")
    if [ -n "$found" ]; then
      pythons+=("$found")
    else
      echo "CPython $version is not on this machine: not tested"
    fi
  done
fi
for python in "${pythons[@]}"; do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  ci/venv.sh ".venv-$version" mpich,test "$python"
  ".venv-$version/bin/python" -m pytest tests/ranks -m pythons
done
