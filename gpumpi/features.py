"""Optional parts: whether one is there, and if not, the reason by name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from typing import TYPE_CHECKING

from gpumpi.errors import FeatureUnavailableError, describe

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Feature", "State", "load", "probe", "versions"]


class State(Enum):
    """Why a part is there or not. Ex.: ``State.NOT_INSTALLED`` for a lost wheel."""

    AVAILABLE = "available"
    NOT_INSTALLED = "not installed"
    BROKEN = "installed, but its import fails"
    TOO_OLD = "older than the version that gpumpi needs"
    NO_DRIVER = "no NVIDIA driver is installed (libnvidia-ml.so.1 is not there)"
    DRIVER_NOT_LOADED = "the NVIDIA driver is installed, but not loaded"
    DRIVER_MISMATCH = "the NVIDIA driver and its library are of different versions"
    NO_PERMISSION = "the NVIDIA driver refuses this user"
    NO_GPU = "the NVIDIA driver shows no GPU to this process"
    GPU_LOST = "a GPU has fallen off the bus or is otherwise lost"
    DRIVER_FAILED = "the NVIDIA driver has failed"


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One optional or required package, as it was found.

    Attributes
    ----------
    name : str
        Name of the distribution.
    state : State
        Whether it can be used, or why not.
    found : str
        Version found, or an empty string.
    detail : str
        The error of a failed import, or an empty string.
    """

    name: str
    state: State
    found: str = ""
    detail: str = ""


#: Import name, distribution name, lowest version that is known to work.
_KNOWN: dict[str, tuple[str, str]] = {
    "mpi4py": ("mpi4py", "4.1"),
    "distributed": ("distributed", "2026.7.1"),
    "dask": ("dask", "2026.7.1"),
    "cryptography": ("cryptography", "42"),
    "bokeh": ("bokeh", "3.1"),
    "pynvml": ("nvidia-ml-py", "12.535"),
}


def probe(name: str) -> Feature:
    """Look a package up in the installed metadata; nothing is imported.

    Parameters
    ----------
    name : str
        Import name of a package that gpumpi knows.
    """
    distribution, lowest = _KNOWN[name]
    try:
        found = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return Feature(name=distribution, state=State.NOT_INSTALLED)
    from packaging.version import Version

    old = Version(found) < Version(lowest)
    return Feature(
        name=distribution,
        state=State.TOO_OLD if old else State.AVAILABLE,
        found=found,
    )


def load(name: str, *, why: str) -> ModuleType:
    """Import a package that gpumpi knows, or say why that is not possible.

    Parameters
    ----------
    name : str
        Import name of the package.
    why : str
        What it is needed for, as a clause: ``"to talk between ranks"``.

    Raises
    ------
    FeatureUnavailableError
        When it is absent, too old, or its import fails.
    """
    feature = probe(name)
    lowest = _KNOWN[name][1]
    if feature.state is State.AVAILABLE:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            feature = Feature(
                name=feature.name,
                state=State.BROKEN,
                found=feature.found,
                detail=f" ({error})",
            )
    found = f"version {feature.found}" if feature.found else "no version of it"
    raise FeatureUnavailableError(
        describe(
            f"importing {feature.name} {why}",
            f"it is {feature.state.value}{feature.detail}",
            f"{feature.name}>={lowest} is needed, {found} was found",
            f'python -m pip install "{feature.name}>={lowest}"',
        )
    )


def versions() -> dict[str, str]:
    """Versions that all ranks of a job must share, from the installed metadata."""
    import platform

    from gpumpi._version import __version__

    found = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "gpumpi": __version__,
    }
    for name in ("dask", "distributed"):
        found[name] = probe(name).found or "none"
    return found
