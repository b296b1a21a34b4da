"""The scheduler file: how a client or further ranks find a running cluster.

Two files, both 0600, written to temporary names and renamed, removed at the end:
the file itself (JSON, which Dask's own ``Client(scheduler_file=)`` reads too), and
beside it, with ``.pem`` added, the credentials, where the job has any. The second is
written first, so who sees the file sees the credentials as well.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from gpumpi.cluster.security import Credentials
from gpumpi.errors import SchedulerFileError, describe

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SchedulerFile"]

_PRIVATE = 0o600


@dataclass(frozen=True, kw_only=True)
class SchedulerFile:
    """What the file says of its cluster.

    Attributes
    ----------
    address : str
        Address of the scheduler, e.g. ``tls://10.0.0.1:41234``.
    job : str
        Identity of the job.
    host : str
        Host of rank 0.
    pid : int
        Process of rank 0.
    started : float
        Seconds since the epoch.
    ranks : int
        Number of ranks of the job.
    nanny : bool
        Whether the workers are supervised.
    secure : bool
        Whether credentials lie beside the file.
    """

    address: str
    job: str
    host: str
    pid: int
    started: float
    ranks: int
    nanny: bool
    secure: bool

    @staticmethod
    def credentials_path(path: Path) -> Path:
        """Where the credentials of a scheduler file lie."""
        return path.with_name(path.name + ".pem")

    @staticmethod
    def check_directory(path: Path) -> None:
        """Refuse a folder where the file cannot or must not be written.

        Raises
        ------
        SchedulerFileError
            When the folder is absent, not writable, or others may write to it and
            it is not sticky.
        """
        doing = f"looking at the folder of the scheduler file {path}"
        folder = path.absolute().parent
        if not folder.is_dir():
            raise SchedulerFileError(
                describe(
                    doing,
                    f"{folder} is not a folder",
                    "an existing folder is needed",
                    f"make it (mkdir -p {folder}) or choose another",
                )
            )
        try:
            # Modes do not tell of read-only mounts, quotas and root on NFS.
            trial = path.with_name(f".{path.name}.{os.getpid()}.try")
            _write(trial, "")
            trial.unlink()
        except OSError as error:
            raise SchedulerFileError(
                describe(
                    doing,
                    f"{folder} is not writable for this user ({error.strerror})",
                    "a folder that this user may write to is needed",
                    "choose one in your home or scratch folder",
                )
            ) from error
        mode = folder.stat().st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
            raise SchedulerFileError(
                describe(
                    doing,
                    f"others may write to {folder} (mode {stat.S_IMODE(mode):o})",
                    "a folder that only you may write to, or a sticky one, is safe",
                    f"chmod go-w {folder}, or choose another folder",
                )
            )

    def write(self, path: Path, credentials: Credentials | None) -> None:
        """Write the file, and the credentials beside it.

        Raises
        ------
        SchedulerFileError
            As :meth:`check_directory`, or when the disk refuses.
        """
        self.check_directory(path)
        try:
            if credentials is not None:
                _write(self.credentials_path(path), credentials.pem)
            _write(path, json.dumps(asdict(self), indent=2) + "\n")
        except OSError as error:
            self.credentials_path(path).unlink(missing_ok=True)
            raise SchedulerFileError(
                describe(
                    f"writing the scheduler file {path}",
                    f"{error.strerror}",
                    "free space and a folder that this user may write to are needed",
                    "choose another folder",
                )
            ) from error

    def remove(self, path: Path) -> None:
        """Remove both files, unless another job has put its own there since."""
        try:
            mine = self.read(path).job == self.job
        except SchedulerFileError:
            # Removed before, or somebody else's now.
            mine = not path.exists()
        if not mine:
            return
        for each in (path, self.credentials_path(path)):
            each.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> SchedulerFile:
        """Read a file that :meth:`write` has written.

        Raises
        ------
        SchedulerFileError
            When it is absent, empty, half-written, foreign, or of another user.
        """
        doing = f"reading the scheduler file {path}"
        again = "start the cluster with --scheduler-file, then try again"
        try:
            found = path.stat()
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise SchedulerFileError(
                describe(doing, "it is not there", "a running cluster writes it", again)
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SchedulerFileError(
                describe(doing, f"{error}", "a readable text file is needed", again)
            ) from error
        if found.st_uid != os.getuid():
            raise SchedulerFileError(
                describe(
                    doing,
                    f"it belongs to user {found.st_uid}",
                    f"only files of this user ({os.getuid()}) are trusted, since "
                    "who wrote the file could run code here",
                    "start a cluster of your own",
                )
            )
        try:
            return cls._checked(json.loads(text))
        except (ValueError, TypeError, RecursionError):
            state = "it is empty" if not text.strip() else "it is half-written or not"
            suffix = "" if not text.strip() else " one of gpumpi's"
            raise SchedulerFileError(
                describe(
                    doing, state + suffix, "a whole file of gpumpi is needed", again
                )
            ) from None

    @classmethod
    def _checked(cls, values: dict[str, object]) -> SchedulerFile:
        made = cls(**values)  # type: ignore[arg-type]
        for item in fields(cls):
            kind = {"str": str, "int": int, "float": float, "bool": bool}[
                str(item.type)
            ]
            value = getattr(made, item.name)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise TypeError(item.name)
        return made

    def read_credentials(self, path: Path) -> Credentials | None:
        """Read the credentials beside the file; None where the job has none.

        Raises
        ------
        SchedulerFileError
            When they should be there and are not, or others could read them.
        """
        if not self.secure:
            return None
        beside = self.credentials_path(path)
        doing = f"reading the credentials {beside}"
        again = f"copy {beside.name} along with {path.name}, with mode 0600"
        try:
            mode = beside.stat().st_mode
            text = beside.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise SchedulerFileError(
                describe(doing, f"{error}", "the job uses TLS", again)
            ) from error
        if stat.S_IMODE(mode) & 0o077:
            raise SchedulerFileError(
                describe(
                    doing,
                    f"its mode is {stat.S_IMODE(mode):o}",
                    "mode 600 is needed: who can read it can run code as you",
                    f"chmod 600 {beside}",
                )
            )
        key, mark, rest = text.partition("-----BEGIN CERTIFICATE-----")
        if "PRIVATE KEY" not in key or "-----END CERTIFICATE-----" not in rest:
            raise SchedulerFileError(
                describe(doing, "it is half-written", "key and certificate", again)
            )
        return Credentials(key=key, certificate=mark + rest)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, flags, _PRIVATE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
