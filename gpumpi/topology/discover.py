"""Put together what NVML and the kernel say of this host."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

from gpumpi.topology.model import Topology
from gpumpi.topology.nvml import read_gpus
from gpumpi.topology.sysfs import read_nics, read_numa_nodes, read_pci_numa_node

__all__ = ["discover"]


def discover(root: Path = Path("/")) -> Topology:
    """Look at this host. Local; no CUDA context, nothing kept open, some 10 ms.

    Parameters
    ----------
    root : Path
        Where ``sys`` lies; tests give recorded ones.
    """
    found = read_gpus(partial(read_pci_numa_node, root=root))
    return Topology(
        host=socket.gethostname(),
        gpu_state=found.state,
        gpu_detail=found.detail,
        driver_version=found.driver_version,
        cuda_version=found.cuda_version,
        numa_nodes=read_numa_nodes(root),
        gpus=found.gpus,
        links=found.links,
        nics=read_nics(root),
    )
