"""Fixtures of the tests of real ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ranks.support import Jobs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    """Return what starts the jobs of one test."""
    return Jobs(tmp_path)


@pytest.fixture(scope="module")
def shared_jobs(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """Return what starts the jobs that the tests of one file share."""
    return Jobs(tmp_path_factory.mktemp("shared"))
