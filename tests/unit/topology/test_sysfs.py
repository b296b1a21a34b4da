from __future__ import annotations

from pathlib import Path

import pytest

from gpumpi.topology.model import Nic, NicKind, NumaNode
from gpumpi.topology.sysfs import read_nics, read_numa_nodes, read_pci_numa_node


@pytest.fixture
def write(tmp_path: Path):
    def write(path: str, text: str) -> None:
        file = tmp_path / "sys" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    return write


@pytest.fixture
def device(tmp_path: Path, write):
    """Make a PCI device and the link to it from a class, as the kernel has them."""

    def make(entry: str, address: str, node: int) -> None:
        write(f"devices/pci0000:00/{address}/numa_node", str(node))
        folder = tmp_path / "sys" / "class" / entry
        folder.mkdir(parents=True, exist_ok=True)
        target = tmp_path / "sys/devices/pci0000:00" / address
        (folder / "device").symlink_to(target)

    return make


def test_numa_nodes_come_in_the_order_of_their_numbers(tmp_path, write) -> None:
    for number, cpus in ((10, "8-11"), (2, "0-3,8"), (0, "")):
        write(f"devices/system/node/node{number}/cpulist", cpus)
        line = f"Node {number} MemTotal:        2048 kB"
        write(f"devices/system/node/node{number}/meminfo", line)
    write("devices/system/node/possible", "0-10")
    assert read_numa_nodes(tmp_path) == (
        NumaNode(number=0, cpus=(), memory_bytes=2**21),
        NumaNode(number=2, cpus=(0, 1, 2, 3, 8), memory_bytes=2**21),
        NumaNode(number=10, cpus=(8, 9, 10, 11), memory_bytes=2**21),
    )


def test_a_host_without_sysfs_has_nothing(tmp_path) -> None:
    assert read_numa_nodes(tmp_path) == ()
    assert read_nics(tmp_path) == ()
    assert read_pci_numa_node("0000:1b:00.0", tmp_path) is None


@pytest.mark.parametrize(("text", "node"), [("1", 1), ("0", 0), ("-1", None)])
def test_a_pci_device_is_on_the_node_that_the_kernel_tells(
    tmp_path, write, text, node
) -> None:
    write("bus/pci/devices/0000:1b:00.0/numa_node", text)
    assert read_pci_numa_node("0000:1b:00.0", tmp_path) == node


def test_each_kind_of_network_device_is_told_apart(tmp_path, write, device) -> None:
    write("class/net/lo/type", "772")
    write("class/net/eth0/type", "1")
    write("class/net/eth0/operstate", "up")
    device("net/eth0", "0000:05:00.0", 0)
    write("class/net/veth1/type", "1")
    write("class/net/veth1/operstate", "down")
    for name, layer, state in (
        ("mlx5_0", "InfiniBand", "4: ACTIVE"),
        ("mlx5_1", "Ethernet", "1: DOWN"),
    ):
        write(f"class/infiniband/{name}/ports/1/link_layer", layer)
        write(f"class/infiniband/{name}/ports/1/state", state)
    device("infiniband/mlx5_0", "0000:18:00.0", 1)
    device("infiniband/mlx5_1", "0000:19:00.0", -1)
    write("class/infiniband_verbs/uverbs0/ibdev", "mlx5_0")
    write("class/infiniband_verbs/abi_version", "6")
    write("devices/pci0000:00/0000:21:00.0/properties/link", "up")
    device("cxi/cxi0", "0000:21:00.0", 1)
    assert read_nics(tmp_path) == (
        nic("eth0", NicKind.ETHERNET, "0000:05:00.0", 0, up=True),
        nic("mlx5_1", NicKind.ETHERNET, "0000:19:00.0", None),
        nic("veth1", NicKind.ETHERNET, "", None),
        nic("mlx5_0", NicKind.INFINIBAND, "0000:18:00.0", 1, up=True, verbs=True),
        nic("cxi0", NicKind.SLINGSHOT, "0000:21:00.0", 1, up=True),
    )


def nic(name, kind, address, node, *, up=False, verbs=False) -> Nic:
    return Nic(
        name=name, kind=kind, pci_address=address, numa_node=node, up=up, verbs=verbs
    )


def test_this_host_is_read() -> None:
    nodes = read_numa_nodes()
    if Path("/sys/devices/system/node/node0").exists():
        assert nodes[0].number == 0
        assert nodes[0].memory_bytes > 2**28
    assert "lo" not in {each.name for each in read_nics()}
