from __future__ import annotations

import getpass
import math
import os
from typing import Any

import pytest

from gpumpi._version import __version__
from gpumpi.config import Options, resolve
from gpumpi.layout import make_plan
from gpumpi.rank.launcher import Launcher, LauncherName
from gpumpi.report.banner import banner, plan_table, table
from gpumpi.topology.host import HostFacts

MPICH = "MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25\n"
OPEN_MPI = "Open MPI v5.0.11, package: Open MPI user@localhost Distribution"
NONE = Launcher(name=LauncherName.NONE)
HYDRA = Launcher(name=LauncherName.MPICH, size=2, evidence="HYDI_CONTROL_FD")


def host(name: str) -> HostFacts:
    return HostFacts(
        name=name,
        identity=name,
        cpus=(0, 1, 2, 3),
        cpu_quota=math.inf,
        memory_bytes=16 * 2**30,
        addresses={"lo": "127.0.0.1"},
        default_address="10.0.0.1",
        gpus=0,
    )


def options(**given: Any) -> Options:
    return resolve(given, environment={}, dask_config={})


def plan(*names: str, first_name: int = 0, **given: Any):
    hosts = {rank: host(name) for rank, name in enumerate(names)}
    return make_plan(hosts, options(**given), first_name=first_name)


def lines(*names: str, library: str = MPICH, **given: Any) -> list[str]:
    shown = {key: given.pop(key) for key in ("dashboard", "gpus_found") if key in given}
    text = banner(
        plan(*names, **given),
        options(**given),
        NONE if library == "no MPI" else HYDRA,
        library,
        workers={},
        **shown,
    )
    return text.splitlines()


# ----------------------------------------------------------------------- tables


def test_columns_are_as_wide_as_their_longest_cell() -> None:
    assert table(("a", "long name"), [("wide cell", "x"), ("y", "z")]) == (
        "  a          long name\n  wide cell  x\n  y          z"
    )


def test_numbers_are_to_the_right_and_so_is_their_absence() -> None:
    assert table(("n", "m"), [("5", "1"), ("100", "-")]) == (
        "    n  m\n    5  1\n  100  -"
    )


def test_no_line_ends_with_blanks() -> None:
    text = table(("a", "b"), [("x", ""), ("y", "long")])
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_table_without_rows_has_its_head() -> None:
    assert table(("a", "b"), []) == "  a  b"


def test_of_many_rows_sixty_four_are_shown_and_the_others_counted() -> None:
    shown = table(("n",), [(str(n),) for n in range(70)]).splitlines()
    assert len(shown) == 1 + 64 + 1
    assert shown[64].strip() == "63"
    assert shown[65] == "  ... and 6 more"
    assert "more" not in table(("n",), [("1",)] * 64)


# ------------------------------------------------------------------------- plans


def test_a_plan_is_one_line_per_rank() -> None:
    text = plan_table(
        plan("n0", "n0"), {0: "tls://127.0.0.1:1", 1: "tls://127.0.0.1:2"}
    )
    assert text == (
        "  rank  host  gpu  cpus  threads  memory   worker\n"
        "     0  n0      -     4        2  8.0 GiB  tls://127.0.0.1:1\n"
        "     1  n0      -     4        2  8.0 GiB  tls://127.0.0.1:2"
    )


def test_a_rank_without_a_worker_says_so() -> None:
    rows = plan_table(plan("n0", "n0", layout="dedicated"), {}).splitlines()
    assert rows[1].split() == ["0", "n0", "-", "4", "-", "-", "none"]
    assert rows[2].split() == ["1", "n0", "-", "4", "4", "16.0", "GiB", "-"]


def test_ranks_that_join_show_the_names_of_their_workers() -> None:
    rows = plan_table(plan("n0", "n0", first_name=7), {}).splitlines()
    assert rows[0].split()[-2:] == ["name", "worker"]
    assert [row.split()[0] for row in rows[1:]] == ["0", "1"]
    assert [row.split()[-2] for row in rows[1:]] == ["7", "8"]


# ----------------------------------------------------------------------- banners


def test_the_first_line_says_what_runs_where_by_what() -> None:
    first = lines("n0", "n0", "n1")[0]
    assert first == (
        f"gpumpi {__version__} | 3 ranks | 2 hosts | 3 CPU workers | "
        "MPICH 5.0.2 via MPICH/Hydra | tcp with TLS"
    )


def test_one_of_each_is_said_in_the_singular() -> None:
    first = lines("n0", library="no MPI")[0]
    assert "| 1 rank | 1 host | 1 CPU worker | no launcher, no MPI |" in first


def test_other_libraries_are_named_with_their_version() -> None:
    assert "| Open MPI v5.0.11 via " in lines("n0", library=OPEN_MPI)[0]


def test_a_dedicated_rank_and_supervised_workers_are_said() -> None:
    first = lines("n0", "n0", layout="dedicated", nanny=True)[0]
    assert "| 2 ranks | 1 host | 1 supervised CPU worker |" in first
    assert first.endswith("| rank 0 dedicated")


def test_security_that_is_off_is_said_aloud() -> None:
    shown = lines("n0", security="none")
    assert shown[0].endswith("| tcp")
    assert shown[-1] == (
        "  SECURITY IS OFF: whoever reaches these ports can run code as you"
    )
    assert "SECURITY" not in "\n".join(lines("n0"))


def test_the_dashboard_has_its_url_and_a_line_for_a_tunnel() -> None:
    url = "http://127.0.0.1:8787/secret/status"
    shown = lines("n0", dashboard=url)
    assert shown[-2] == f"  dashboard: {url}"
    user = getpass.getuser()
    assert shown[-1] == (f"  from elsewhere: ssh -N -L 8787:127.0.0.1:8787 {user}@n0")
    assert "dashboard" not in "\n".join(lines("n0"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become nobody")
def test_a_user_without_a_name_gets_a_banner_too(run_python) -> None:
    # Containers run under numbers that no passwd file knows (docker --user 12345).
    code = """
        import getpass, os, pwd
        from gpumpi.report.banner import _tunnel
        os.setuid(12345)
        print(_tunnel("http://127.0.0.1:8787/x/status", "n0"))
    """
    nameless = {name: "" for name in ("LOGNAME", "USER", "LNAME", "USERNAME")}
    ended = run_python(code, env=nameless)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("ssh -N -L 8787:127.0.0.1:8787 ")
    assert ended.stdout.rstrip().endswith("n0")


def test_gpus_that_are_not_used_are_said() -> None:
    shown = "\n".join(lines("n0", gpus_found=4))
    assert "  4 GPUs found and not used: this version starts CPU workers only" in shown
    assert "1 GPU found" in "\n".join(lines("n0", gpus_found=1))
    assert "GPU" not in "\n".join(lines("n0"))
