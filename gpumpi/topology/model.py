"""What a host is made of: NUMA nodes, GPUs, their links, network devices.

Frozen data only; nothing is read here. ``to_json`` and ``from_json`` go both ways, so
that a recorded host can stand for a real one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from gpumpi.features import State

__all__ = [
    "Gpu",
    "GpuLink",
    "Level",
    "MigDevice",
    "Nic",
    "NicKind",
    "NumaNode",
    "Topology",
]


class Level(StrEnum):
    """The nearest thing that two devices have in common, as nvidia-smi names it."""

    BOARD = "INTERNAL"
    SWITCH = "PIX"
    SWITCHES = "PXB"
    HOST_BRIDGE = "PHB"
    NUMA_NODE = "NODE"
    HOST = "SYS"


class NicKind(StrEnum):
    """What a network device speaks."""

    ETHERNET = "Ethernet"
    INFINIBAND = "InfiniBand"
    SLINGSHOT = "Slingshot"


@dataclass(frozen=True, kw_only=True)
class NumaNode:
    """A NUMA node.

    Attributes
    ----------
    number : int
        The kernel's number of it.
    cpus : tuple of int
        Its cores; empty for one that has only memory.
    memory_bytes : int
        Its memory.
    """

    number: int
    cpus: tuple[int, ...]
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class MigDevice:
    """A slice of a GPU (Multi-Instance GPU): what CUDA sees in the GPU's place.

    Attributes
    ----------
    uuid : str
        ``MIG-`` and a UUID.
    memory_bytes : int
        Memory of the slice, never of its parent.
    """

    uuid: str
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A physical GPU.

    Attributes
    ----------
    index : int
        NVML's number of it: the order of PCI addresses.
    uuid : str
        ``GPU-`` and a UUID; the same in every container and control group.
    name : str
        Its product name.
    pci_address : str
        As the kernel writes it: ``0000:1b:00.0``.
    memory_bytes : int
        All of its memory.
    compute_capability : tuple of int
        Major and minor; (9, 0) for Hopper.
    numa_node : int or None
        Where it is attached; None where the kernel does not tell.
    cpus : tuple of int
        Cores near it; empty where the driver does not tell.
    nvlink_lanes : int
        NVLink lanes that are up.
    nvlink_version : str
        Generation of NVLink, e.g. ``4.0``; empty without lanes.
    mig : bool
        Whether MIG is on; then CUDA does not take the GPU itself.
    mig_devices : tuple of MigDevice
        Its slices.
    """

    index: int
    uuid: str
    name: str
    pci_address: str
    memory_bytes: int
    compute_capability: tuple[int, int]
    numa_node: int | None
    cpus: tuple[int, ...]
    nvlink_lanes: int
    nvlink_version: str
    mig: bool
    mig_devices: tuple[MigDevice, ...]


@dataclass(frozen=True, kw_only=True)
class GpuLink:
    """What is between two GPUs of a host.

    Attributes
    ----------
    first, second : int
        Indices of the GPUs, the lower first.
    level : Level or None
        The nearest common ancestor on PCIe; None where the driver does not tell.
    nvlink_lanes : int
        NVLink lanes between them, directly or through switches; 0 for none.
    p2p : str
        Whether one can read the other's memory over PCIe or NVLink: ``ok`` or NVML's
        reason.
    """

    first: int
    second: int
    level: Level | None
    nvlink_lanes: int
    p2p: str

    @property
    def label(self) -> str:
        """As ``nvidia-smi topo -m`` writes it: NV18, PIX, PXB, PHB, NODE, SYS; or ?."""
        if self.nvlink_lanes:
            return f"NV{self.nvlink_lanes}"
        return "?" if self.level is None else self.level.value


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A network device.

    Attributes
    ----------
    name : str
        Of the device: ``eth0``, ``mlx5_0``, ``cxi0``.
    kind : NicKind
        What it speaks.
    pci_address : str
        Empty for a virtual one.
    numa_node : int or None
        Where it is attached; None where the kernel does not tell.
    up : bool
        Whether a link is there.
    verbs : bool
        Whether user space can reach it past the kernel (``/dev/infiniband/uverbs*``).
    """

    name: str
    kind: NicKind
    pci_address: str
    numa_node: int | None
    up: bool
    verbs: bool


@dataclass(frozen=True, kw_only=True)
class Topology:
    """One host.

    Attributes
    ----------
    host : str
        Its name.
    gpu_state : State
        Whether GPUs were found, or why not.
    gpu_detail : str
        What the driver said, where it said something.
    driver_version : str
        Of the NVIDIA driver; empty without one.
    cuda_version : str
        The highest CUDA that the driver serves, e.g. ``12.4``; empty without one.
    numa_nodes, gpus, links, nics : tuple
        In the order of their numbers or names.
    """

    host: str
    gpu_state: State
    gpu_detail: str = ""
    driver_version: str = ""
    cuda_version: str = ""
    numa_nodes: tuple[NumaNode, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    links: tuple[GpuLink, ...] = ()
    nics: tuple[Nic, ...] = ()

    def link(self, first: int, second: int) -> GpuLink | None:
        """Find what is between two GPUs; None for one GPU with itself."""
        wanted = (min(first, second), max(first, second))
        for link in self.links:
            if (link.first, link.second) == wanted:
                return link
        return None

    def to_json(self) -> str:
        """Write it as JSON, one object."""
        return json.dumps(asdict(self) | {"gpu_state": self.gpu_state.name}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        ValueError, TypeError, KeyError
            When it is something else.
        """
        values: dict[str, Any] = json.loads(text)
        parts: dict[str, Any] = {
            "gpu_state": State[values["gpu_state"]],
            "numa_nodes": tuple(NumaNode(**_tuples(n)) for n in values["numa_nodes"]),
            "gpus": tuple(_gpu(gpu) for gpu in values["gpus"]),
            "links": tuple(
                GpuLink(**link | {"level": link["level"] and Level(link["level"])})
                for link in values["links"]
            ),
            "nics": tuple(
                Nic(**nic | {"kind": NicKind(nic["kind"])}) for nic in values["nics"]
            ),
        }
        return cls(**values | parts)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _gpu(values: dict[str, Any]) -> Gpu:
    slices = tuple(MigDevice(**each) for each in values["mig_devices"])
    return Gpu(**_tuples(values) | {"mig_devices": slices})
