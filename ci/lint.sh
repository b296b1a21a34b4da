#!/usr/bin/env bash
# Style, types and layers. ci/lint.sh [VENV]
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-.venv}/bin
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
"$bin/lint-imports"
