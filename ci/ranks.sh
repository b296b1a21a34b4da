#!/usr/bin/env bash
# Tier ranks, and the examples: real mpirun. ci/ranks.sh [VENV] [PYTEST OPTIONS]
# The MPI is the one in the virtual environment (.venv: MPICH, .venv-openmpi: Open MPI).
# These tests have time limits and the machine may be busy: what failed runs once more,
# alone, and must pass then.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
shift $(($# > 0))
tests=(tests/ranks tests/examples "$@")
"$venv/bin/python" -m pytest "${tests[@]}" || {
  code=$?
  [ "$code" -eq 1 ] || exit "$code"
  echo "== once more, what failed"
  "$venv/bin/python" -m pytest "${tests[@]}" --last-failed --last-failed-no-failures none
}
