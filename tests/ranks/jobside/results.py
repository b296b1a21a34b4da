"""For scripts of the tests: results as files, since stdout of ranks may mix."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def save(name: str, value: Any) -> None:
    """Write `value` as JSON for `Jobs.saved` of the test, all at once."""
    path = Path(os.environ["RESULTS"], f"{name}.json")
    temporary = path.with_name(f".{name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)
