from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

from gpumpi.features import State
from gpumpi.report.topology import topology_html, topology_text
from gpumpi.topology.model import (
    Gpu,
    GpuLink,
    Level,
    MigDevice,
    Nic,
    NicKind,
    NumaNode,
    Topology,
)

GPU = Gpu(
    index=0,
    uuid="GPU-a",
    name="NVIDIA H100",
    pci_address="0000:1b:00.0",
    memory_bytes=80 * 2**30,
    compute_capability=(9, 0),
    numa_node=0,
    cpus=(0, 1),
    nvlink_lanes=18,
    nvlink_version="4.0",
    mig=False,
    mig_devices=(),
)
SLICED = dataclasses.replace(
    GPU,
    index=1,
    uuid="GPU-b",
    numa_node=None,
    nvlink_lanes=0,
    nvlink_version="",
    mig=True,
    mig_devices=(MigDevice(uuid="MIG-c", memory_bytes=5 * 2**30),),
)
NIC = Nic(
    name="mlx5_0",
    kind=NicKind.INFINIBAND,
    pci_address="0000:18:00.0",
    numa_node=0,
    up=True,
    verbs=True,
)
HOST = Topology(
    host="n0",
    gpu_state=State.AVAILABLE,
    driver_version="550.54",
    cuda_version="12.4",
    numa_nodes=(NumaNode(number=0, cpus=(0, 1, 2, 8), memory_bytes=2**40),),
    gpus=(GPU, SLICED),
    links=(GpuLink(first=0, second=1, level=Level.HOST, nvlink_lanes=0, p2p="ok"),),
    nics=(NIC, dataclasses.replace(NIC, name="eth0", numa_node=None, verbs=False)),
)


def test_a_host_is_shown_node_by_node_and_link_by_link() -> None:
    assert topology_text(HOST).splitlines() == [
        "host n0: 2 GPU(s), NVIDIA driver 550.54, CUDA up to 12.4",
        "NUMA node 0: cpus 0-2,8, 1.0 TiB",
        "  gpu 0: NVIDIA H100, 80.0 GiB, NVLink 4.0 x18, 0000:1b:00.0, GPU-a",
        "  nic mlx5_0: InfiniBand, up, 0000:18:00.0, verbs",
        "NUMA node not told by the kernel:",
        "  gpu 1: NVIDIA H100, 80.0 GiB, no NVLink, 0000:1b:00.0, GPU-b, MIG on, "
        "1 slice(s)",
        "    MIG-c, 5.0 GiB",
        "  nic eth0: InfiniBand, up, 0000:18:00.0",
        "links between GPUs:",
        "         gpu 0  gpu 1",
        "  gpu 0  X      SYS",
        "  gpu 1  SYS    X",
    ]


def test_a_page_has_every_device_and_link_and_nothing_unescaped() -> None:
    named = dataclasses.replace(GPU, name="<script>")
    page = topology_html(dataclasses.replace(HOST, gpus=(named, SLICED)))
    HTMLParser().feed(page)
    for text in ("GPU-a", "GPU-b", "MIG-c", "4.0 x18", "mlx5_0", "1.0 TiB", "SYS"):
        assert text in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_the_reason_for_no_gpu_is_named() -> None:
    bare = Topology(host="n0", gpu_state=State.NO_DRIVER, gpu_detail="not found")
    assert topology_text(bare) == f"host n0: no GPU: {State.NO_DRIVER.value}"
    failed = Topology(host="n0", gpu_state=State.DRIVER_FAILED, gpu_detail="odd")
    assert topology_text(failed).endswith("has failed (odd)")
