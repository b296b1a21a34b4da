"""``python -m gpumpi.run``: see :mod:`gpumpi.cli.run`."""

from __future__ import annotations

import gc

if __name__ == "__main__":
    # Imports make 600 modules and hardly any garbage; without collections they take
    # a sixth less CPU. It is on again before the script runs.
    gc.disable()

from gpumpi.cli.run import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
