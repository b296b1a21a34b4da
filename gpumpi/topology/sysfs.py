"""What the kernel says of a host: NUMA nodes and network devices, from /sys."""

from __future__ import annotations

from pathlib import Path

from gpumpi.topology.model import Nic, NicKind, NumaNode
from gpumpi.units import parse_cpu_list

__all__ = ["read_nics", "read_numa_nodes", "read_pci_numa_node"]

#: ARPHRD_LOOPBACK, in /sys/class/net/*/type.
_LOOPBACK = "772"


def read_numa_nodes(root: Path = Path("/")) -> tuple[NumaNode, ...]:
    """Read the NUMA nodes; none on a kernel without NUMA. Local.

    Parameters
    ----------
    root : Path
        Where ``sys`` lies; tests give recorded ones.
    """
    found = []
    for folder in (root / "sys/devices/system/node").glob("node[0-9]*"):
        number = int(folder.name.removeprefix("node"))
        kib = 0
        for line in _read(folder / "meminfo").splitlines():
            if "MemTotal:" in line:
                kib = int(line.split()[-2])
        cpus = parse_cpu_list(_read(folder / "cpulist"))
        found.append(NumaNode(number=number, cpus=cpus, memory_bytes=kib * 1024))
    return tuple(sorted(found, key=lambda node: node.number))


def read_pci_numa_node(address: str, root: Path = Path("/")) -> int | None:
    """Read the NUMA node of a PCI device; None where the kernel does not tell."""
    return _numa_node(root / "sys/bus/pci/devices" / address)


def read_nics(root: Path = Path("/")) -> tuple[Nic, ...]:
    """Read the network devices, by name, without the loopback. Local.

    An InfiniBand or RoCE adapter is listed by the name that UCX and NCCL use
    (``mlx5_0``), a Slingshot one by that of its provider (``cxi0``), beside the
    kernel's interfaces (``eth0``).
    """
    classes = root / "sys/class"
    nics = [
        _nic(folder, NicKind.ETHERNET, up=_read(folder / "operstate") == "up")
        for folder in _folders(classes / "net")
        if _read(folder / "type") != _LOOPBACK
    ]
    with_verbs = {
        _read(each / "ibdev") for each in _folders(classes / "infiniband_verbs")
    }
    for folder in _folders(classes / "infiniband"):
        ports = _folders(folder / "ports")
        native = any("InfiniBand" in _read(port / "link_layer") for port in ports)
        nics.append(
            _nic(
                folder,
                NicKind.INFINIBAND if native else NicKind.ETHERNET,
                up=any("ACTIVE" in _read(port / "state") for port in ports),
                verbs=folder.name in with_verbs,
            )
        )
    nics += [
        _nic(
            folder,
            NicKind.SLINGSHOT,
            up=_read(folder / "device/properties/link") == "up",
        )
        for folder in _folders(classes / "cxi")
    ]
    return tuple(sorted(nics, key=lambda nic: (nic.kind, nic.name)))


def _nic(folder: Path, kind: NicKind, *, up: bool, verbs: bool = False) -> Nic:
    device = folder / "device"
    address = device.resolve().name if device.exists() else ""
    return Nic(
        name=folder.name,
        kind=kind,
        pci_address=address if address.count(":") == 2 else "",
        numa_node=_numa_node(device),
        up=up,
        verbs=verbs,
    )


def _numa_node(device: Path) -> int | None:
    text = _read(device / "numa_node")
    # -1 where the firmware does not tell, as on most machines with one node.
    return int(text) if text.isascii() and text.isdigit() else None


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _read(path: Path) -> str:
    """Read a file of /sys; empty when it is absent, or its device does not answer."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
