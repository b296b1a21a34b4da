"""The door to NVML: the GPUs of this host, as the driver describes them.

NVML makes no CUDA context and sees the GPUs that the control groups of this process
let it see, whatever ``CUDA_VISIBLE_DEVICES`` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from gpumpi.errors import FeatureUnavailableError
from gpumpi.features import State, load, probe
from gpumpi.topology.model import Gpu, GpuLink, Level, MigDevice

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NvmlReading", "read_gpus"]

#: 64 words of 64 cores each.
_CPU_WORDS = 64
_WORD_BITS = 64
_MIG_ON = 1

_LEVELS = {
    0: Level.BOARD,
    10: Level.SWITCH,
    20: Level.SWITCHES,
    30: Level.HOST_BRIDGE,
    40: Level.NUMA_NODE,
    50: Level.HOST,
}
_NVLINK_VERSIONS = {
    1: "1.0",
    2: "2.0",
    3: "2.2",
    4: "3.0",
    5: "3.1",
    6: "4.0",
    7: "5.0",
    8: "6.0",
}
_P2P = {
    0: "ok",
    1: "chipset not supported",
    2: "GPU not supported",
    3: "topology not supported",
    4: "disabled by regkey",
    5: "not supported",
}
#: By number: pynvml (13.615) has NVML_P2P_CAPS_INDEX_READ as a tuple.
_P2P_READ = 0
_P2P_NVLINK = 2


@dataclass(frozen=True, kw_only=True)
class NvmlReading:
    """What NVML said.

    Attributes
    ----------
    state : State
        Whether GPUs were found, or why not.
    detail : str
        NVML's own words for a failure.
    driver_version, cuda_version : str
        Empty when there is no driver.
    gpus, links : tuple
        In the order of NVML's indices.
    """

    state: State
    detail: str = ""
    driver_version: str = ""
    cuda_version: str = ""
    gpus: tuple[Gpu, ...] = ()
    links: tuple[GpuLink, ...] = ()


def read_gpus(numa_node: Callable[[str], int | None]) -> NvmlReading:
    """Read all GPUs that this process can see. Local; no CUDA context.

    Parameters
    ----------
    numa_node : callable
        Gives the NUMA node of a PCI address, since old drivers do not.

    Returns
    -------
    NvmlReading
        Never an exception for a missing package, driver or GPU: its state tells.
    """
    try:
        nvml: Any = load("pynvml", why="to find GPUs")
    except FeatureUnavailableError as error:
        return NvmlReading(state=probe("pynvml").state, detail=str(error))
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return NvmlReading(state=_state(nvml, error), detail=str(error))
    try:
        return _Reader(nvml, numa_node).read()
    except nvml.NVMLError as error:
        return NvmlReading(state=_state(nvml, error), detail=str(error))
    finally:
        nvml.nvmlShutdown()


def _state(nvml: Any, error: Any) -> State:
    states = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: State.NO_DRIVER,
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: State.DRIVER_NOT_LOADED,
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: State.DRIVER_MISMATCH,
        nvml.NVML_ERROR_NO_PERMISSION: State.NO_PERMISSION,
        nvml.NVML_ERROR_GPU_IS_LOST: State.GPU_LOST,
    }
    return states.get(error.value, State.DRIVER_FAILED)


class _Reader:
    """One reading of an initialised NVML."""

    def __init__(self, nvml: Any, numa_node: Callable[[str], int | None]) -> None:
        self._nvml = nvml
        self._numa_node = numa_node
        # What a GPU or a driver does not have; everything else is a failure.
        self._absent = (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_INVALID_ARGUMENT,
            nvml.NVML_ERROR_NOT_FOUND,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        )

    def read(self) -> NvmlReading:
        nvml = self._nvml
        cuda = nvml.nvmlSystemGetCudaDriverVersion()
        handles = [
            nvml.nvmlDeviceGetHandleByIndex(index)
            for index in range(nvml.nvmlDeviceGetCount())
        ]
        addresses = [self._address(nvml.nvmlDeviceGetPciInfo(h)) for h in handles]
        lanes = [self._lanes(handle) for handle in handles]
        return NvmlReading(
            state=State.AVAILABLE if handles else State.NO_GPU,
            driver_version=nvml.nvmlSystemGetDriverVersion(),
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}",
            gpus=tuple(
                self._gpu(index, handle, addresses[index], sum(lanes[index].values()))
                for index, handle in enumerate(handles)
            ),
            links=tuple(
                self._link(first, second, handles, addresses, lanes)
                for first, second in combinations(range(len(handles)), 2)
            ),
        )

    def _ask(self, default: Any, name: str, *arguments: Any) -> Any:
        """Call NVML; the default where this GPU or driver does not have it."""
        try:
            return getattr(self._nvml, name)(*arguments)
        except self._nvml.NVMLError as error:
            if error.value in self._absent:
                return default
            raise

    def _gpu(self, index: int, handle: Any, address: str, lanes: int) -> Gpu:
        nvml = self._nvml
        version = self._ask(0, "nvmlDeviceGetNvLinkVersion", handle, 0) if lanes else 0
        mig, _ = self._ask((0, 0), "nvmlDeviceGetMigMode", handle)
        return Gpu(
            index=index,
            uuid=nvml.nvmlDeviceGetUUID(handle),
            name=nvml.nvmlDeviceGetName(handle),
            pci_address=address,
            memory_bytes=nvml.nvmlDeviceGetMemoryInfo(handle).total,
            compute_capability=tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
            numa_node=self._numa_node(address),
            cpus=self._cpus(handle),
            nvlink_lanes=lanes,
            nvlink_version=_NVLINK_VERSIONS.get(version, ""),
            mig=mig == _MIG_ON,
            mig_devices=self._mig_devices(handle) if mig == _MIG_ON else (),
        )

    def _mig_devices(self, handle: Any) -> tuple[MigDevice, ...]:
        nvml = self._nvml
        most = self._ask(0, "nvmlDeviceGetMaxMigDeviceCount", handle)
        found = [
            self._ask(None, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
            for index in range(most)
        ]
        return tuple(
            MigDevice(
                uuid=nvml.nvmlDeviceGetUUID(each),
                memory_bytes=nvml.nvmlDeviceGetMemoryInfo(each).total,
            )
            for each in found
            if each is not None
        )

    def _cpus(self, handle: Any) -> tuple[int, ...]:
        words = self._ask((), "nvmlDeviceGetCpuAffinity", handle, _CPU_WORDS)
        return tuple(
            index * _WORD_BITS + bit
            for index, word in enumerate(words)
            for bit in range(_WORD_BITS)
            if word >> bit & 1
        )

    def _lanes(self, handle: Any) -> dict[str, int]:
        """Count the lanes that are up, by PCI address of their other end.

        A switch's are counted under an empty address.
        """
        nvml = self._nvml
        found: dict[str, int] = {}
        for lane in range(nvml.NVML_NVLINK_MAX_LINKS):
            if not self._ask(0, "nvmlDeviceGetNvLinkState", handle, lane):
                continue
            kind = self._ask(
                nvml.NVML_NVLINK_DEVICE_TYPE_UNKNOWN,
                "nvmlDeviceGetNvLinkRemoteDeviceType",
                handle,
                lane,
            )
            end = ""
            if kind == nvml.NVML_NVLINK_DEVICE_TYPE_GPU:
                info = self._ask(None, "nvmlDeviceGetNvLinkRemotePciInfo", handle, lane)
                end = "" if info is None else self._address(info)
            found[end] = found.get(end, 0) + 1
        return found

    def _link(
        self,
        first: int,
        second: int,
        handles: list[Any],
        addresses: list[str],
        lanes: list[dict[str, int]],
    ) -> GpuLink:
        pair = handles[first], handles[second]
        level = self._ask(None, "nvmlDeviceGetTopologyCommonAncestor", *pair)
        reading = self._ask(None, "nvmlDeviceGetP2PStatus", *pair, _P2P_READ)
        bridged = self._ask(None, "nvmlDeviceGetP2PStatus", *pair, _P2P_NVLINK)
        direct = lanes[first].get(addresses[second], 0)
        # Through a switch any pair has all lanes, if the driver says that it works.
        switched = min(lanes[first].get("", 0), lanes[second].get("", 0))
        return GpuLink(
            first=first,
            second=second,
            level=_LEVELS.get(level),
            nvlink_lanes=direct or (switched if bridged == 0 else 0),
            p2p=_P2P.get(reading, "unknown"),
        )

    @staticmethod
    def _address(info: Any) -> str:
        """Write a PCI address as the kernel does; NVML's domain has 8 digits."""
        text = info.busId if isinstance(info.busId, str) else info.busId.decode()
        return str(text.lower()[-12:])
