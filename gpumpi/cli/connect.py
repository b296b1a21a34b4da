"""``gpumpi.connect`` and ``gpumpi connect``: reach a running cluster by its file."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpumpi.errors import GpumpiError
from gpumpi.log import log

if TYPE_CHECKING:
    import os

    from distributed import Client

__all__ = ["command", "connect"]

_ANSWER_SECONDS = 5.0


def connect(scheduler_file: str | os.PathLike[str], **client_options: Any) -> Client:
    """Connect to a running cluster.

    Parameters
    ----------
    scheduler_file : path
        What the cluster was given as ``--scheduler-file``; its credentials lie
        beside it.
    **client_options
        Passed on to ``distributed.Client``.

    Returns
    -------
    distributed.Client
        Local to this process; close it as any client.

    Raises
    ------
    SchedulerFileError
        Within 5 s, when the file is absent, empty, half-written or another user's,
        its credentials are missing, or nobody answers at its address.
    """
    from distributed import Client

    from gpumpi.cluster.join import ask
    from gpumpi.cluster.scheduler_file import SchedulerFile
    from gpumpi.cluster.security import JobSecurity

    path = Path(scheduler_file).expanduser()
    file = SchedulerFile.read(path)
    credentials = file.read_credentials(path)
    ask(path, file, credentials, time.monotonic() + _ANSWER_SECONDS)
    security = None if credentials is None else JobSecurity(credentials)
    return Client(file.address, security=security, **client_options)


@click.command(name="connect")
@click.option(
    "--env",
    "as_environment",
    is_flag=True,
    help="Print shell lines, after which a plain Client() finds the cluster.",
)
@click.argument("scheduler_file", type=click.Path(path_type=Path))
def command(as_environment: bool, scheduler_file: Path) -> None:  # noqa: FBT001
    """Look at the cluster of SCHEDULER_FILE, or make a shell's Dask find it.

    eval "$(gpumpi connect --env scheduler.json)"
    """
    try:
        lines = (
            _environment(scheduler_file) if as_environment else _show(scheduler_file)
        )
    except GpumpiError as error:
        log.problem(str(error))
        raise SystemExit(error.exit_code) from error
    click.echo(lines)


def _environment(path: Path) -> str:
    """Shell lines with paths only: no secret enters the environment."""
    from gpumpi.cluster.scheduler_file import SchedulerFile

    file = SchedulerFile.read(path)
    values = {"DASK_SCHEDULER_ADDRESS": file.address}
    if file.read_credentials(path) is not None:
        pem = str(SchedulerFile.credentials_path(path.absolute()))
        values |= {
            "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": pem,
            "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": pem,
            "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": pem,
        }
    return "\n".join(f"export {k}={shlex.quote(v)}" for k, v in values.items())


def _show(path: Path) -> str:
    from gpumpi.cluster.join import ask
    from gpumpi.cluster.scheduler_file import SchedulerFile

    file = SchedulerFile.read(path)
    found = ask(
        path, file, file.read_credentials(path), time.monotonic() + _ANSWER_SECONDS
    )
    return (
        f"{file.address}: {found['n_workers']} workers, "
        f"{found['total_threads']} threads, job {file.job} on {file.host}"
    )
