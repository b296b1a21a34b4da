from __future__ import annotations

import ipaddress
import math
import os
import pickle
import socket
from pathlib import Path

import psutil
import pytest

from gpumpi.topology import host as module
from gpumpi.topology.host import free_bytes, read_host


@pytest.fixture(scope="module")
def facts():
    return read_host()


def test_the_host_is_told_by_its_name_and_its_boot(facts) -> None:
    assert facts.name == socket.gethostname()
    assert facts.identity.startswith(facts.name + " ")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.identity.endswith(boot)


def test_two_processes_of_a_host_have_one_identity(facts, run_python) -> None:
    ended = run_python(
        "from gpumpi.topology.host import read_host; print(read_host().identity)"
    )
    assert ended.stdout == facts.identity + "\n"


def test_the_cores_are_those_that_this_process_may_run_on(facts, run_python) -> None:
    assert facts.cpus == tuple(sorted(os.sched_getaffinity(0)))
    bound = run_python(
        "import os; os.sched_setaffinity(0, {0})\n"
        "from gpumpi.topology.host import read_host; print(read_host().cpus)"
    )
    assert bound.stdout == "(0,)\n"


def test_memory_and_quota_are_those_that_dask_reads(facts) -> None:
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    assert facts.memory_bytes == MEMORY_LIMIT
    assert 0 < facts.memory_bytes <= psutil.virtual_memory().total
    if len(facts.cpus) > CPU_COUNT:
        assert facts.cpu_quota == CPU_COUNT
    else:
        assert facts.cpu_quota == math.inf


def test_the_quota_of_the_control_group_is_read(monkeypatch) -> None:
    # Dask reads the control group when it is imported; this is what it found.
    monkeypatch.setattr("dask.system.CPU_COUNT", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6})
    found = read_host()
    assert found.cpu_quota == 1.0
    assert found.cpus == (4, 5, 6)


def test_every_interface_that_is_up_has_its_address(facts) -> None:
    assert facts.addresses["lo"] == "127.0.0.1"
    for name, address in facts.addresses.items():
        assert psutil.net_if_stats()[name].isup
        assert ipaddress.IPv4Address(address)


def test_the_address_towards_others_is_one_that_can_be_bound(facts) -> None:
    with socket.socket() as probe:
        probe.bind((facts.default_address, 0))


def test_gpus_are_counted_by_what_the_driver_shows(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(module, "_NVIDIA_GPUS", tmp_path / "absent")
    assert read_host().gpus == 0
    for name in ("0000:17:00.0", "0000:65:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    monkeypatch.setattr(module, "_NVIDIA_GPUS", tmp_path / "gpus")
    assert read_host().gpus == 2


def test_a_kernel_without_a_boot_identity_leaves_the_name(monkeypatch) -> None:
    monkeypatch.setattr(module, "_BOOT_ID", Path("/no/such/file"))
    assert read_host().identity == f"{socket.gethostname()} "


def test_facts_go_through_pickle(facts) -> None:
    assert pickle.loads(pickle.dumps(facts)) == facts


def test_reading_keeps_nothing_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    read_host()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_free_bytes_are_what_this_user_may_write(tmp_path) -> None:
    found = free_bytes(tmp_path)
    assert 0 < found <= psutil.disk_usage(str(tmp_path)).free * 1.01 + 2**20


def test_a_folder_that_is_absent_has_no_free_bytes(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        free_bytes(tmp_path / "absent")
