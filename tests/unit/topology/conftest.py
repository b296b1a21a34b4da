from __future__ import annotations

import os
import subprocess
import sys

import pytest
from doubles.nvml import RecordedHost, build

from gpumpi.topology.model import Topology

CODE = """
import sys
from pathlib import Path
from gpumpi.topology.discover import discover
print(discover(Path(sys.argv[1])).to_json())
"""


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory):
    """The folder with the NVML double."""
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def seen(nvml_library, tmp_path):
    """What a process sees of a recorded host. NVML is loaded once per process."""

    def see(host: RecordedHost) -> Topology:
        environment = os.environ | host.write(tmp_path, nvml_library)
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return Topology.from_json(done.stdout)

    return see
