"""The host under this process: cores, memory, network interfaces, GPUs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HostFacts", "free_bytes", "read_host"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """What one process sees of its host.

    Attributes
    ----------
    name : str
        Host name.
    identity : str
        Equal for two processes exactly when they run on the same host: the host
        name and the kernel's boot identity.
    cpus : tuple of int
        Numbers of the cores that this process may run on.
    cpu_quota : float
        Cores' worth of time that the control group grants; infinite without quota.
    memory_bytes : int
        Memory of the host, or the control group's limit where that is lower.
    addresses : dict of str to str
        IPv4 address of every interface that is up.
    default_address : str
        Address towards other hosts.
    gpus : int
        Number of NVIDIA GPUs that the driver shows. No CUDA context is made.
    """

    name: str
    identity: str
    cpus: tuple[int, ...]
    cpu_quota: float
    memory_bytes: int
    addresses: dict[str, str]
    default_address: str
    gpus: int


def read_host() -> HostFacts:
    """Read the facts of this host. Local; starts nothing, keeps nothing open.

    Memory and quota come from Dask's own reading of the control groups, so that
    both agree on the limits.
    """
    import psutil
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT
    from distributed.utils import get_ip

    name = socket.gethostname()
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    states = psutil.net_if_stats()
    addresses = {
        interface: address.address
        for interface, found in psutil.net_if_addrs().items()
        for address in found
        if address.family == socket.AF_INET
        and (interface not in states or states[interface].isup)
    }
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    return HostFacts(
        name=name,
        identity=f"{name} {boot}",
        cpus=cpus,
        cpu_quota=float(CPU_COUNT) if len(cpus) > CPU_COUNT else float("inf"),
        memory_bytes=int(MEMORY_LIMIT),
        addresses=addresses,
        default_address=get_ip(),
        gpus=len(list(_NVIDIA_GPUS.iterdir())) if _NVIDIA_GPUS.is_dir() else 0,
    )


def free_bytes(directory: Path) -> int:
    """Bytes that this process may still write into the file system of a folder."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
