"""The door to NVML, through the real pynvml, on recorded hosts."""

from __future__ import annotations

import pytest
from doubles.nvml import RecordedHost, recordings

from gpumpi.features import State
from gpumpi.topology.model import Level, Topology
from gpumpi.topology.nvml import read_gpus
from gpumpi.units import parse_cpu_list

MIB = 2**20


def test_every_recording_names_its_source() -> None:
    assert len(recordings()) >= 5
    for name in recordings():
        assert (
            RecordedHost.read(name)
            .values["source"]
            .startswith(("nvidia-smi topo", "Made up"))
        )


@pytest.mark.parametrize("name", recordings())
def test_every_gpu_of_a_recorded_host_is_read(seen, name) -> None:
    host = RecordedHost.read(name)
    found = seen(host)
    assert found.gpu_state is State.AVAILABLE
    assert found.driver_version == host.values["driver"]
    cuda = host.values["cuda"]
    assert found.cuda_version == f"{cuda // 1000}.{cuda % 1000 // 10}"
    assert [gpu.index for gpu in found.gpus] == list(range(len(host.values["gpus"])))
    for gpu, told in zip(found.gpus, host.values["gpus"], strict=True):
        assert (gpu.uuid, gpu.name) == (told["uuid"], told["name"])
        assert gpu.pci_address == told["pci"]
        assert gpu.memory_bytes == told["memory"]
        assert gpu.compute_capability == tuple(told["capability"])
        assert gpu.numa_node == told.get("numa")
        assert gpu.cpus == parse_cpu_list(told["cpus"])
    pairs = [(link.first, link.second) for link in found.links]
    size = len(found.gpus)
    assert pairs == [(a, b) for a in range(size) for b in range(a + 1, size)]


@pytest.mark.parametrize(
    ("name", "label"), [("dgx-h100", "NV18"), ("dgx-a100", "NV12")]
)
def test_a_switch_gives_every_pair_all_lanes(seen, name, label) -> None:
    found = seen(RecordedHost.read(name))
    assert {link.label for link in found.links} == {label}
    assert {link.p2p for link in found.links} == {"ok"}
    assert {gpu.nvlink_lanes for gpu in found.gpus} == {int(label[2:])}
    assert {gpu.nvlink_version for gpu in found.gpus} == {
        "4.0" if name == "dgx-h100" else "3.0"
    }


def test_lanes_to_a_switch_count_only_where_the_driver_says_that_they_work(
    seen,
) -> None:
    host = RecordedHost.read("dgx-h100")
    host.values["p2p"]["nvlink"] = 5
    found = seen(host)
    assert found.link(0, 1).label == "NODE"
    assert found.link(0, 7).label == "SYS"


def test_a_bridge_joins_the_two_gpus_that_it_joins(seen) -> None:
    found = seen(RecordedHost.read("bridged-pair"))
    assert found.link(1, 0).label == "NV12"
    assert found.link(0, 2).label == found.link(1, 2).label == "PHB"
    assert [gpu.nvlink_lanes for gpu in found.gpus] == [12, 12, 0]
    assert [gpu.cpus == () for gpu in found.gpus] == [False, False, True]


def test_without_nvlink_the_way_through_the_host_is_told(seen) -> None:
    found = seen(RecordedHost.read("pcie-8x4090"))
    assert {link.level for link in found.links} == {Level.HOST}
    assert {link.label for link in found.links} == {"SYS"}
    assert {link.p2p for link in found.links} == {"chipset not supported"}
    assert {gpu.nvlink_version for gpu in found.gpus} == {""}
    assert not any(gpu.mig for gpu in found.gpus)


def test_slices_have_their_own_memory(seen) -> None:
    first, second = seen(RecordedHost.read("mig-a100")).gpus
    assert first.mig
    assert [each.memory_bytes // MIB for each in first.mig_devices] == [20096, 4864]
    assert all(each.uuid.startswith("MIG-") for each in first.mig_devices)
    assert (second.mig, second.mig_devices) == (False, ())


@pytest.mark.parametrize(
    ("function", "code", "state"),
    [
        ("nvmlInit", 9, State.DRIVER_NOT_LOADED),
        ("nvmlInit", 18, State.DRIVER_MISMATCH),
        ("nvmlInit", 4, State.NO_PERMISSION),
        ("nvmlDeviceGetCount", 999, State.DRIVER_FAILED),
        ("nvmlDeviceGetHandleByIndex", 15, State.GPU_LOST),
        ("nvmlDeviceGetNvLinkState", 15, State.GPU_LOST),
        ("nvmlDeviceGetUUID", 3, State.DRIVER_FAILED),
    ],
)
def test_a_failure_has_a_name_and_the_drivers_words(
    seen, function, code, state
) -> None:
    host = RecordedHost.read("mig-a100")
    host.errors[function] = code
    found = seen(host)
    assert found.gpu_state is state
    assert found.gpu_detail
    assert (found.gpus, found.links) == ((), ())
    assert found.numa_nodes


@pytest.mark.parametrize(
    ("function", "change"),
    [
        ("nvmlDeviceGetCpuAffinity", lambda t: {gpu.cpus for gpu in t.gpus} == {()}),
        ("nvmlDeviceGetNvLinkState", lambda t: t.gpus[0].nvlink_lanes == 0),
        ("nvmlDeviceGetNvLinkVersion", lambda t: t.gpus[0].nvlink_version == ""),
        ("nvmlDeviceGetMigMode", lambda t: not t.gpus[0].mig),
        ("nvmlDeviceGetP2PStatus", lambda t: t.links[0].p2p == "unknown"),
        (
            "nvmlDeviceGetTopologyCommonAncestor",
            lambda t: t.links[0].level is None and t.links[1].label == "?",
        ),
    ],
)
def test_what_a_driver_does_not_have_is_left_out(seen, function, change) -> None:
    host = RecordedHost.read("bridged-pair")
    host.errors[function] = 3
    found = seen(host)
    assert found.gpu_state is State.AVAILABLE
    assert change(found)


def test_a_driver_without_a_gpu_is_told_from_no_driver(seen) -> None:
    host = RecordedHost.read("mig-a100")
    host.values["gpus"] = []
    found = seen(host)
    assert (found.gpu_state, found.gpus) == (State.NO_GPU, ())
    assert found.driver_version == host.values["driver"]


def test_no_package_is_told_from_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpumpi import features

    monkeypatch.setitem(features._KNOWN, "pynvml", ("nvidia-ml-py", "999"))
    found = read_gpus(lambda address: None)
    assert found.state is State.TOO_OLD
    assert 'pip install "nvidia-ml-py>=999"' in found.detail


@pytest.mark.parametrize("name", recordings())
def test_a_host_survives_json(seen, name) -> None:
    found = seen(RecordedHost.read(name))
    assert Topology.from_json(found.to_json()) == found
