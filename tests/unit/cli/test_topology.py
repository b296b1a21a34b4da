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
    done = run("--pdf")
    assert done.returncode == 2
    assert "--pdf" in done.stderr


def test_a_page_is_written_beside_what_is_printed(tmp_path) -> None:
    page = tmp_path / "host.html"
    done = run("--html", str(page))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("host ")
    assert done.stdout.splitlines()[0].split(":")[0] in page.read_text()


def test_a_page_that_cannot_be_written_is_said(tmp_path) -> None:
    done = run("--html", str(tmp_path / "absent" / "host.html"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"gpumpi: writing {tmp_path}")
    assert "No such file or directory" in done.stderr
