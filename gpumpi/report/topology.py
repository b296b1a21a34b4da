"""A host for people: NUMA nodes with GPUs and network devices, then the links."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumpi.features import State
from gpumpi.report.banner import table
from gpumpi.units import format_bytes, format_cpu_list

if TYPE_CHECKING:
    from gpumpi.topology.model import Gpu, Nic, Topology

__all__ = ["topology_html", "topology_text"]


def topology_text(found: Topology) -> str:
    """Write a host on one screen.

    Parameters
    ----------
    found : Topology
        The host.
    """
    parts = [_head(found)]
    for title, gpus, nics in _nodes(found):
        parts.append(title)
        parts += [f"  {_gpu(gpu)}" for gpu in gpus]
        parts += [f"  {_nic(nic)}" for nic in nics]
    if found.links:
        parts += ["links between GPUs:", _matrix(found)]
    return "\n".join(parts)


def topology_html(found: Topology) -> str:
    """Write a host as one HTML page that needs nothing else.

    Parameters
    ----------
    found : Topology
        The host.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gpumpi.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("topology.html").render(
        found=found, head=_head(found), nodes=_nodes(found), bytes=format_bytes
    )


def _nodes(found: Topology) -> list[tuple[str, list[Gpu], list[Nic]]]:
    """Group devices by NUMA node, those that the kernel does not place last."""
    titles: dict[int | None, str] = {}
    for node in found.numa_nodes:
        cpus = format_cpu_list(node.cpus) or "none"
        titles[node.number] = (
            f"NUMA node {node.number}: cpus {cpus}, {format_bytes(node.memory_bytes)}"
        )
    attached = {gpu.numa_node for gpu in found.gpus}
    attached |= {nic.numa_node for nic in found.nics}
    for number in sorted(attached - set(titles), key=str):
        known = "not told by the kernel" if number is None else f"{number}"
        titles[number] = f"NUMA node {known}:"
    return [
        (
            title,
            [gpu for gpu in found.gpus if gpu.numa_node == number],
            [nic for nic in found.nics if nic.numa_node == number],
        )
        for number, title in titles.items()
    ]


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
