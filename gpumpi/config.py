"""The options, each written once.

The fields of the dataclasses below are the single source: the command line, the
``GPUMPI_*`` environment variables, the ``gpumpi.*`` keys of Dask's configuration,
the keyword arguments of :func:`gpumpi.initialize` and the table of the docs are all
made from them. Precedence: argument > environment > Dask configuration > default.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpumpi.errors import OptionError, describe
from gpumpi.units import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "ClusterOptions",
    "Layout",
    "Options",
    "Protocol",
    "ReportOptions",
    "SchedulerOptions",
    "Security",
    "WorkerOptions",
    "option_fields",
    "resolve",
]

ENVIRONMENT_PREFIX = "GPUMPI_"


class Protocol(StrEnum):
    """What carries the bytes. Ex.: ``tcp``: control and partitions over TCP."""

    AUTO = "auto"
    TCP = "tcp"


class Security(StrEnum):
    """Who may connect. Ex.: ``tls``: only holders of this job's credentials."""

    TLS = "tls"
    NONE = "none"


class Layout(StrEnum):
    """Which rank does what. Ex.: ``dedicated``: rank 0 has no worker."""

    SHARED = "shared"
    DEDICATED = "dedicated"


def _boolean(text: object) -> bool:
    if isinstance(text, bool):
        return text
    word = str(text).strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise OptionError(
        describe(
            "reading a switch",
            f"got {text!r}",
            "1, true, yes, on and 0, false, no, off are allowed",
            "write one of these",
        )
    )


def _choice(kind: type[StrEnum]) -> Callable[[object], StrEnum]:
    def convert(text: object) -> StrEnum:
        try:
            return kind(str(text))
        except ValueError:
            raise OptionError(
                describe(
                    f"reading a {kind.__name__.lower()}",
                    f"got {text!r}",
                    "allowed: " + ", ".join(kind),
                    "choose one of these",
                )
            ) from None

    return convert


def _whole(lowest: int, highest: int | None = None) -> Callable[[object], int]:
    def convert(text: object) -> int:
        try:
            value = int(str(text))
        except ValueError:
            value = lowest - 1
        if value < lowest or (highest is not None and value > highest):
            upto = "" if highest is None else f" up to {highest}"
            raise OptionError(
                describe(
                    "reading a whole number",
                    f"got {text!r}",
                    f"numbers from {lowest}{upto} are allowed",
                    "write such a number",
                )
            )
        return value

    return convert


def _memory(text: object) -> int | str:
    if text == "auto":
        return "auto"
    return parse_bytes(str(text))


def _threads(text: object) -> int | str:
    return "auto" if text == "auto" else _whole(1)(text)


def _path(text: object) -> Path:
    try:
        if str(text).strip():
            return Path(str(text)).expanduser()
        why = "an empty path"
    except RuntimeError as error:
        why = str(error).rstrip(".")
    raise OptionError(
        describe(
            "reading a path",
            f"got {text!r} ({why})",
            "the path of a file or folder is allowed",
            "write such a path",
        )
    )


def _address(text: object) -> str:
    host, _, port = str(text).rpartition(":")
    _whole(0, 65535)(port)
    return f"{host or '127.0.0.1'}:{port}"


def _gpus(text: object) -> str | tuple[str, ...]:
    if isinstance(text, list | tuple):
        text = ",".join(str(part) for part in text)
    words = [word.strip() for word in str(text).split(",") if word.strip()]
    if words in (["auto"], ["none"]):
        return words[0]
    if not words or {"auto", "none"} & set(words):
        raise OptionError(
            describe(
                "reading the GPUs to use",
                f"got {text!r}",
                "auto, none, or a list of indices and UUIDs is allowed",
                "write for example auto or 0,1,2,3",
            )
        )
    return tuple(words)


def _resources(text: object) -> tuple[tuple[str, float], ...]:
    if isinstance(text, dict):
        text = ",".join(f"{key}={value}" for key, value in text.items())
    pairs = []
    for word in str(text).replace(",", " ").split():
        name, _, amount = word.partition("=")
        try:
            number = float(amount)
        except ValueError:
            number = math.nan
        if not name or not 0 <= number < math.inf:
            raise OptionError(
                describe(
                    "reading the resources of a worker",
                    f"got {word!r}",
                    "NAME=NUMBER pairs, with commas between them, are allowed",
                    "write for example GPU=1,MEMORY=4e9",
                )
            )
        pairs.append((name, number))
    return tuple(pairs)


def _words(text: object) -> tuple[str, ...]:
    if isinstance(text, list | tuple):
        return tuple(str(word) for word in text)
    return tuple(word for word in str(text).split(",") if word)


def _text(text: object) -> str:
    return str(text)


def _option(
    default: Any,
    convert: Callable[[Any], Any],
    help_text: str,
    *,
    metavar: str = "",
    negative: bool = False,
) -> Any:
    """A field that is an option.

    ``negative`` says that the command line has ``--no-NAME`` for a switch that is
    on by default.
    """
    return field(
        default=default,
        metadata={
            "convert": convert,
            "help": help_text,
            "metavar": metavar,
            "switch": convert is _boolean,
            "negative": negative,
        },
    )


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How the ranks become one cluster."""

    protocol: Protocol = _option(
        Protocol.AUTO,
        _choice(Protocol),
        "auto and tcp: all over TCP.",
        metavar="|".join(Protocol),
    )
    security: Security = _option(
        Security.TLS,
        _choice(Security),
        "tls: only members of this job may connect; none: anyone may.",
        metavar="|".join(Security),
    )
    layout: Layout = _option(
        Layout.SHARED,
        _choice(Layout),
        "shared: N ranks, N workers; dedicated: rank 0 has no worker.",
        metavar="|".join(Layout),
    )
    nanny: bool = _option(
        False, _boolean, "Workers are supervised children of their ranks."
    )
    join: bool = _option(
        False, _boolean, "Add workers to the running cluster of --scheduler-file."
    )
    start_timeout: float = _option(
        60.0, parse_seconds, "Longest start, in seconds.", metavar="SECONDS"
    )
    stop_timeout: float = _option(
        15.0, parse_seconds, "Longest end, in seconds.", metavar="SECONDS"
    )
    worker_ttl: float = _option(
        60.0,
        parse_seconds,
        "A worker silent for so many seconds is lost.",
        metavar="SECONDS",
    )


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The worker of one rank. Memory and threads are per rank."""

    gpus: str | tuple[str, ...] = _option(
        "auto", _gpus, "auto, none, or GPU indices and UUIDs of a node.", metavar="LIST"
    )
    nthreads: int | str = _option(
        "auto",
        _threads,
        "Threads that run tasks; auto: the cores bound to the rank.",
        metavar="N",
    )
    memory_limit: int | str = _option(
        "auto",
        _memory,
        "Bytes of host memory; auto: the host's limit / local ranks.",
        metavar="BYTES",
    )
    local_directory: Path | None = _option(
        None, _path, "Scratch folder for spilled data.", metavar="DIR"
    )
    interface: str | None = _option(
        None, _text, "Network interface to listen on, e.g. ib0.", metavar="NAME"
    )
    preload: tuple[str, ...] = _option(
        (), _words, "Modules or files that each worker loads first.", metavar="LIST"
    )
    resources: tuple[tuple[str, float], ...] = _option(
        (), _resources, "Abstract resources, e.g. GPU=1.", metavar="LIST"
    )


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions:
    """The scheduler and how others find it."""

    scheduler_file: Path | None = _option(
        None, _path, "File through which others connect (0600).", metavar="FILE"
    )
    scheduler_port: int = _option(
        0, _whole(0, 65535), "Port of the scheduler; 0: a free one.", metavar="PORT"
    )
    dashboard_address: str = _option(
        "127.0.0.1:0", _address, "Where the dashboard listens.", metavar="HOST:PORT"
    )
    dashboard: bool = _option(True, _boolean, "No dashboard.", negative=True)


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What is said, and where."""

    log_dir: Path | None = _option(
        None, _path, "Folder for one log file per rank.", metavar="DIR"
    )
    check: bool = _option(
        False, _boolean, "Plan, check all ranks, print, and leave with 0 or 2."
    )
    quiet: bool = _option(False, _boolean, "No banner and no notices.")


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options of a run."""

    cluster: ClusterOptions = ClusterOptions()
    worker: WorkerOptions = WorkerOptions()
    scheduler: SchedulerOptions = SchedulerOptions()
    report: ReportOptions = ReportOptions()

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        file = self.scheduler.scheduler_file
        if self.cluster.join and file is None:
            raise OptionError(
                describe(
                    "reading the options",
                    "got --join without --scheduler-file",
                    "joining needs the file of the running cluster",
                    "add --scheduler-file FILE",
                )
            )
        if self.cluster.join and self.cluster.layout is Layout.DEDICATED:
            raise OptionError(
                describe(
                    "reading the options",
                    "got --join with --layout dedicated",
                    "ranks that join hold workers only",
                    "leave --layout out",
                )
            )

    def changed(self) -> Iterator[tuple[str, object]]:
        """Names and values of the options that differ from their defaults."""
        default = Options()
        for group in fields(self):
            for item in fields(getattr(self, group.name)):
                value = getattr(getattr(self, group.name), item.name)
                if value != getattr(getattr(default, group.name), item.name):
                    yield item.name, value


_GROUPS: dict[str, type] = {
    "cluster": ClusterOptions,
    "worker": WorkerOptions,
    "scheduler": SchedulerOptions,
    "report": ReportOptions,
}


def option_fields() -> Iterator[dataclasses.Field[Any]]:
    """All fields that are options, in the order of the docs table."""
    for group in _GROUPS.values():
        yield from fields(group)


def resolve(
    arguments: Mapping[str, object],
    *,
    environment: Mapping[str, str] | None = None,
    dask_config: Mapping[str, object] | None = None,
) -> Options:
    """Make the options of a run out of the four sources.

    Parameters
    ----------
    arguments : mapping
        Given on the command line or as keyword arguments; None means not given.
    environment : mapping, optional
        Default: the environment of this process.
    dask_config : mapping, optional
        What stands under ``gpumpi`` in Dask's configuration. Default: read there.

    Raises
    ------
    OptionError
        When a name is unknown, a value is not allowed, or two exclude each other.
    """
    environment = os.environ if environment is None else environment
    if dask_config is None:
        import dask.config

        dask_config = dask.config.get("gpumpi", {}) or {}
    from_environment = {
        key.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for key, value in environment.items()
        if key.startswith(ENVIRONMENT_PREFIX)
    }
    from_dask = {key.replace("-", "_"): value for key, value in dask_config.items()}
    sources: tuple[tuple[str, Mapping[str, object], Callable[[str], str]], ...] = (
        ("Dask's configuration", from_dask, lambda name: f"gpumpi.{name}"),
        ("the environment", from_environment, lambda name: f"GPUMPI_{name.upper()}"),
        ("the arguments", arguments, lambda name: name),
    )
    known = {item.name: item for item in option_fields()}
    values: dict[str, object] = {}
    for source, given, spell in sources:
        for name, value in given.items():
            if name not in known:
                raise _unknown(source, name, list(known), spell)
            if value is not None:
                values[name] = _convert(known[name], value, source, spell(name))
    groups = {
        group: kind(
            **{
                item.name: values[item.name]
                for item in fields(kind)
                if item.name in values
            }
        )
        for group, kind in _GROUPS.items()
    }
    return Options(**groups)


def _convert(
    item: dataclasses.Field[Any], value: object, source: str, spelled: str
) -> object:
    try:
        return item.metadata["convert"](value)
    except OptionError as error:
        raise OptionError(f"{spelled} from {source}: {error}") from None


def _unknown(
    source: str, name: str, known: list[str], spell: Callable[[str], str]
) -> OptionError:
    near = difflib.get_close_matches(name, known, n=1)
    cure = f"write {spell(near[0])}" if near else "take one of these, or leave it out"
    return OptionError(
        describe(
            f"reading the options from {source}",
            f"{spell(name)} is not an option",
            "known are " + ", ".join(spell(word) for word in known),
            cure,
        )
    )
