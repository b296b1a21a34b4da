"""A host as text: NUMA nodes with their GPUs and network devices, then the links."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumpi.features import State
from gpumpi.report.banner import table
from gpumpi.units import format_bytes, format_cpu_list

if TYPE_CHECKING:
    from gpumpi.topology.model import Gpu, Nic, Topology

__all__ = ["topology_text"]


def topology_text(found: Topology) -> str:
    """Write a host on one screen.

    Parameters
    ----------
    found : Topology
        The host.
    """
    parts = [_head(found)]
    numbers: list[int | None] = [node.number for node in found.numa_nodes]
    nodes = {node.number: node for node in found.numa_nodes}
    attached = {gpu.numa_node for gpu in found.gpus}
    attached |= {nic.numa_node for nic in found.nics}
    for number in [*numbers, *sorted(attached - set(numbers), key=str)]:
        if number in nodes:
            node = nodes[number]
            cpus = format_cpu_list(node.cpus) or "none"
            parts.append(
                f"NUMA node {number}: cpus {cpus}, {format_bytes(node.memory_bytes)}"
            )
        else:
            parts.append("NUMA node not told by the kernel:")
        parts += [f"  {_gpu(gpu)}" for gpu in found.gpus if gpu.numa_node == number]
        parts += [f"  {_nic(nic)}" for nic in found.nics if nic.numa_node == number]
    if found.links:
        parts += ["links between GPUs:", _matrix(found)]
    return "\n".join(parts)


def _head(found: Topology) -> str:
    if found.gpu_state is not State.AVAILABLE:
        told = found.gpu_state in (State.DRIVER_FAILED, State.BROKEN)
        detail = f" ({found.gpu_detail})" if told else ""
        return f"host {found.host}: no GPU: {found.gpu_state.value}{detail}"
    return (
        f"host {found.host}: {len(found.gpus)} GPU(s), NVIDIA driver "
        f"{found.driver_version}, CUDA up to {found.cuda_version}"
    )


def _gpu(gpu: Gpu) -> str:
    nvlink = (
        f"NVLink {gpu.nvlink_version} x{gpu.nvlink_lanes}"
        if gpu.nvlink_lanes
        else "no NVLink"
    )
    text = (
        f"gpu {gpu.index}: {gpu.name}, {format_bytes(gpu.memory_bytes)}, {nvlink}, "
        f"{gpu.pci_address}, {gpu.uuid}"
    )
    if not gpu.mig:
        return text
    slices = [
        f"\n    {each.uuid}, {format_bytes(each.memory_bytes)}"
        for each in gpu.mig_devices
    ]
    return f"{text}, MIG on, {len(slices)} slice(s){''.join(slices)}"


def _nic(nic: Nic) -> str:
    words = [nic.kind.value, "up" if nic.up else "down", nic.pci_address or "virtual"]
    if nic.verbs:
        words.append("verbs")
    return f"nic {nic.name}: {', '.join(words)}"


def _matrix(found: Topology) -> str:
    """Write what is between every two GPUs, as ``nvidia-smi topo -m`` does."""
    rows = []
    for gpu in found.gpus:
        links = [found.link(gpu.index, other.index) for other in found.gpus]
        labels = ["X" if link is None else link.label for link in links]
        rows.append((f"gpu {gpu.index}", *labels))
    return table(("", *(f"gpu {gpu.index}" for gpu in found.gpus)), rows)
