"""The front door: lists the suites and runs one.

``python -m benchmarks.run`` lists; ``python -m benchmarks.run startup --quick``
runs one. What follows the name goes to the suite, ``--help`` too.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # python benchmarks/run.py
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SUITES", "main"]

#: Name of the suite to the module that has its ``main(arguments) -> int``.
SUITES = {
    "startup": "benchmarks.startup",
    "report": "benchmarks.report",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """List the suites, or run one; the suite's exit code is ours."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run")
    parser.add_argument("suite", nargs="?", choices=list(SUITES))
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="goes to the suite")
    asked = parser.parse_args(arguments)
    if asked.suite is None:
        for name, module in SUITES.items():
            first = (importlib.import_module(module).__doc__ or "").partition("\n")[0]
            print(f"{name:10} {first}")
        return 0
    return int(importlib.import_module(SUITES[asked.suite]).main(asked.rest))


if __name__ == "__main__":
    sys.exit(main())
