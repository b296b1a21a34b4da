"""Tests of the removal of launchers' own words."""

from __future__ import annotations

import pytest
from helpers.banners import strip_banners

OPENMPI_KILLED = f"""\
{"-" * 74}
prterun noticed that process rank 1 with PID 4754 on node vm exited on
signal 9 (Killed).
{"-" * 74}
"""

OPENMPI_ABORT = f"""\
{"-" * 74}
MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD
  Proc: [[34447,1],1]
  Errorcode: 7

NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.
You may or may not see output from other processes, depending on
exactly when Open MPI kills them.
{"-" * 74}
{"-" * 74}
prterun has exited due to process rank 1 with PID 0 on node vm calling
"abort". This may have caused other processes in the application to be
terminated by signals sent by prterun (as reported here).
{"-" * 74}

"""

OPENMPI_SIGNALS = "Abort is in progress...hit ctrl-c again to forcibly terminate\n\n"

MPICH_KILLED = f"""\

{"=" * 83}
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 4690 RUNNING AT vm
=   EXIT CODE: 2
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
{"=" * 83}
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Interrupt (signal 2)
This typically refers to a problem with your application.
Please see the FAQ page for debugging suggestions
"""

MPICH_ABORT = (
    "Abort(7) on node 1 (rank 1 in comm 0): application called"
    " MPI_Abort(MPI_COMM_WORLD, 7) - process 1\n"
)

MPICH_SIGNAL = """\
[mpiexec@vm] Sending Ctrl-C to processes as requested
[mpiexec@vm] Press Ctrl-C again to force abort
"""

MPICH_PROXY = "[proxy:0@vm] HYD_pmcd_pmip_control_cmd_cb (proxy.c:480): assert\n"

OWN = {
    "openmpi-killed": OPENMPI_KILLED,
    "openmpi-abort": OPENMPI_ABORT,
    "openmpi-signals": OPENMPI_SIGNALS,
    "mpich-killed": MPICH_KILLED,
    "mpich-abort": MPICH_ABORT,
    "mpich-signal": MPICH_SIGNAL,
    "mpich-proxy": MPICH_PROXY,
}


@pytest.mark.parametrize("banner", OWN.values(), ids=OWN.keys())
def test_banner_goes_and_output_around_it_stays(banner: str) -> None:
    assert strip_banners(f"before\n{banner}after\n") == "before\nafter\n"


@pytest.mark.parametrize("banner", OWN.values(), ids=OWN.keys())
def test_banner_alone_leaves_nothing(banner: str) -> None:
    assert strip_banners(banner) == ""


@pytest.mark.parametrize(
    "text",
    [
        f"{'-' * 70}\na table of a program\n{'-' * 70}\n",
        f"{'=' * 70}\nheading\n{'=' * 70}\n",
        "[1, 2, 3]\n[worker] up\n",
        "Abort(1) on node 0 (rank 0 in comm 0): Fatal error in internal_Send\n",
        "",
    ],
)
def test_output_of_programs_stays(text: str) -> None:
    assert strip_banners(text) == text


def test_lone_line_of_dashes_does_not_hide_a_banner() -> None:
    rule = f"{'-' * 70}\n"
    assert strip_banners(rule + "text\n" + OPENMPI_KILLED) == rule + "text\n"
