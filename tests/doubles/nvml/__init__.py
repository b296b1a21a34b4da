"""The NVML double: built with ``cc``, it plays a recorded host to any process.

A recording (``tests/data/topology/*.json``) names its source and has what NVML and the
kernel say of each GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpumpi.units import parse_cpu_list

__all__ = ["RecordedHost", "build", "recordings"]

_SOURCE = Path(__file__).parent / "nvml.c"
_DATA = Path(__file__).parents[2] / "data" / "topology"

_FLAGS = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror")
_SWITCH, _GPU = 2, 0
#: As nvidia-smi writes them, to NVML's numbers.
_LEVELS = {"PIX": 10, "PXB": 20, "PHB": 30, "NODE": 40, "SYS": 50}


def build(folder: Path) -> Path:
    """Build the library into a folder; give that folder, for LD_LIBRARY_PATH."""
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [os.environ.get("CC", "cc"), *_FLAGS, "-o", str(target), str(_SOURCE)],
        check=True,
    )
    return folder


def recordings() -> list[str]:
    """Names of all recorded hosts."""
    return sorted(path.stem for path in _DATA.glob("*.json"))


@dataclass
class RecordedHost:
    """One recorded host.

    Attributes
    ----------
    values : dict
        The recording; tests may change it before it is written.
    errors : dict of str to int
        NVML functions that are to fail, with their codes.
    """

    values: dict[str, Any]
    errors: dict[str, int]

    @classmethod
    def read(cls, name: str) -> RecordedHost:
        """Read a recording by name."""
        return cls(json.loads((_DATA / f"{name}.json").read_text()), {})

    def write(self, folder: Path, library: Path) -> dict[str, str]:
        """Write it for the double, and its part of /sys below ``folder``.

        Returns
        -------
        dict of str to str
            What must be in the environment of a process that is to see it.
        """
        lines: list[list[object]] = [
            ["driver", self.values["driver"]],
            ["cuda", self.values["cuda"]],
            *(["error", name, code] for name, code in self.errors.items()),
        ]
        gpus = self.values["gpus"]
        for index, gpu in enumerate(gpus):
            lines += self._gpu(index, gpu)
        for first in range(len(gpus)):
            for second in range(first + 1, len(gpus)):
                level = _LEVELS[self.values["levels"][first][second]]
                p2p = self.values["p2p"]
                lines.append(["pair", first, second, level, p2p["read"], p2p["nvlink"]])
        path = folder / "nvml.txt"
        path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
        self._write_sysfs(folder)
        return {"LD_LIBRARY_PATH": str(library), "NVML_DOUBLE": str(path)}

    def _gpu(self, index: int, gpu: dict[str, Any]) -> list[list[object]]:
        major, minor = gpu["capability"]
        nvlink = gpu.get("nvlink", {"version": 0})
        mig = -1 if gpu.get("mig") is None else int(bool(gpu["mig"]["on"]))
        address = f"0000{gpu['pci'].upper()}"
        words = [gpu["uuid"], gpu["name"], address, gpu["memory"], major, minor]
        lines: list[list[object]] = [["gpu", *words, nvlink["version"], mig]]
        cpus = ",".join(map(str, parse_cpu_list(gpu["cpus"])))
        lines.append(["cpus", index, cpus])
        lines += [["lane", index, _SWITCH, "-"]] * nvlink.get("switch", 0)
        for end, lanes in nvlink.get("gpus", {}).items():
            lines += [["lane", index, _GPU, f"0000{end.upper()}"]] * lanes
        if mig > 0:
            slices = gpu["mig"]["slices"]
            lines += [["mig", index, each["uuid"], each["memory"]] for each in slices]
        return lines

    def _write_sysfs(self, folder: Path) -> None:
        system = folder / "sys"
        for number, node in self.values["numa_nodes"].items():
            made = system / "devices/system/node" / f"node{number}"
            made.mkdir(parents=True)
            (made / "cpulist").write_text(node["cpus"] + "\n")
            kib = node["memory"] // 1024
            (made / "meminfo").write_text(
                f"Node {number} MemTotal:       {kib} kB\n"
                f"Node {number} MemFree:        {kib // 2} kB\n"
            )
        for gpu in self.values["gpus"]:
            made = system / "bus/pci/devices" / gpu["pci"]
            made.mkdir(parents=True)
            (made / "numa_node").write_text(f"{gpu.get('numa', -1)}\n")
