#!/usr/bin/env bash
# Tier unit: Python only. ci/unit.sh [VENV] [PYTEST OPTIONS]
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
shift $(($# > 0))
exec "$venv/bin/python" -m pytest tests/unit --timeout 120 "$@"
