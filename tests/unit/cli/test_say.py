from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gpumpi.cli.say import show_plan
from gpumpi.config import Options
from gpumpi.layout import make_plan
from gpumpi.log import log
from gpumpi.rank.launcher import Launcher, LauncherName
from gpumpi.rank.mpi import LoneWorld
from gpumpi.report.banner import banner
from gpumpi.topology.host import HostFacts

if TYPE_CHECKING:
    import pytest

HOST = HostFacts(
    name="n0",
    identity="n0",
    cpus=(0, 1),
    cpu_quota=math.inf,
    memory_bytes=2**33,
    addresses={"lo": "127.0.0.1"},
    default_address="127.0.0.1",
    gpus=0,
)
PLAN = make_plan({0: HOST}, Options())
NONE = Launcher(name=LauncherName.NONE)


def test_a_plan_is_the_banner_and_a_word_that_nothing_was_started(capsys) -> None:
    show_plan(PLAN, Options(), LoneWorld(), NONE)
    out, errors = capsys.readouterr()
    assert out == (
        banner(PLAN, Options(), NONE, "no MPI", workers={})
        + "\ncheck: all ranks can do this; nothing was started\n"
    )
    assert errors == ""


def test_a_quiet_check_says_nothing(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "quiet", True)
    show_plan(PLAN, Options(), LoneWorld(), NONE)
    assert capsys.readouterr() == ("", "")
