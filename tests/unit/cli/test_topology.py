from __future__ import annotations

import subprocess
import sys

from gpumpi.topology.model import Topology


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpumpi", "topology", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_this_host_is_shown_with_or_without_a_gpu() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("host ")


def test_json_is_what_the_model_reads() -> None:
    done = run("--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = Topology.from_json(done.stdout)
    assert found.host
    assert found.to_json() == done.stdout.strip()


def test_an_unknown_option_is_refused() -> None:
    done = run("--html")
    assert done.returncode == 2
    assert "--html" in done.stderr
