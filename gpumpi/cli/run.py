"""``gpumpi run``, also ``python -m gpumpi.run``: ranks become a Dask cluster."""

from __future__ import annotations

import contextlib
import gc
import io
import sys
from typing import TYPE_CHECKING, Any

import click

from gpumpi._version import __version__
from gpumpi.cli.options import add_options
from gpumpi.cli.say import announce, show_plan
from gpumpi.cli.script import Script
from gpumpi.cluster.bootstrap import start_rank
from gpumpi.cluster.start import Refused, Start
from gpumpi.errors import OptionError, describe
from gpumpi.log import log
from gpumpi.rank.launcher import Launcher, read_launcher
from gpumpi.rank.leave import end_process
from gpumpi.rank.signals import Reaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumpi.cluster.job import Job
    from gpumpi.config import Options

__all__ = ["main", "run"]


@click.command(
    name="run",
    context_settings={"allow_interspersed_args": False, "max_content_width": 88},
    epilog="Every option is also an environment variable (GPUMPI_START_TIMEOUT=30) "
    "and a key of Dask's configuration (gpumpi.start-timeout).",
)
@click.version_option(__version__, message="gpumpi %(version)s")
@click.option("-m", "is_module", is_flag=True, help="TARGET is a module.")
@add_options
@click.argument("target", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(**given: Any) -> None:
    """Turn the ranks of an MPI job into a Dask cluster and run TARGET on rank 0.

    mpirun -n 8 python -m gpumpi.run script.py --its-own-option

    In the script, `Client()` connects to the job. Without TARGET, and with
    --scheduler-file, the cluster serves until it is stopped.
    """
    sys.exit(_run(given, read_launcher()))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and end the process with its code."""
    launcher = read_launcher()
    hidden = io.StringIO()
    try:
        # All ranks read the same command line; one of them speaks of it.
        with (
            contextlib.nullcontext()
            if launcher.rank == 0
            else contextlib.redirect_stdout(hidden)
        ):
            context = run.make_context(
                "python -m gpumpi.run", list(sys.argv[1:] if argv is None else argv)
            )
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        if launcher.rank != 0:
            sys.exit(0)
        log.problem(f"{error.format_message()} See: python -m gpumpi.run --help")
        sys.exit(OptionError.exit_code)
    sys.exit(_run(context.params, launcher))


def _run(given: dict[str, Any], launcher: Launcher) -> int:
    given = dict(given)
    target, arguments = given.pop("target"), given.pop("arguments")
    is_module = given.pop("is_module")
    script = Script(target, tuple(arguments), is_module) if target else None

    def prepare(options: Options) -> None:
        _check_mode(script, options)
        if script is not None:
            script.check()
        file = options.scheduler.scheduler_file
        if file is not None and not options.cluster.join:
            from gpumpi.cluster.scheduler_file import SchedulerFile

            SchedulerFile.check_directory(file)

    try:
        job = start_rank(
            Start(
                arguments=given,
                prepare=prepare,
                announce=announce,
                show_plan=show_plan,
                path=script.folder if script is not None else None,
            ),
            launcher,
        )
    except Refused as refused:
        return refused.exit_code
    gc.enable()
    from gpumpi.cluster.shutdown import leave, serve, serve_cluster, stop

    if job.world.rank != 0:
        end_process(job.world, serve(job))
    code = serve_cluster(job) if script is None else _run_script(script, job)
    stop(job, code)
    end_process(job.world, code, lambda: leave(job))


def _run_script(script: Script, job: Job) -> int:
    from gpumpi.cluster.session import Session, set_current_session

    set_current_session(Session(job))
    job.signals.reaction = Reaction.SCRIPT
    try:
        if job.signals.received is not None:
            return 128 + job.signals.received
        return script.run()
    finally:
        job.signals.reaction = Reaction.NOTE


def _check_mode(script: Script | None, options: Options) -> None:
    """Refuse a run that has nothing to do, or two things."""
    if script is not None and options.cluster.join:
        raise OptionError(
            describe(
                "reading the command line",
                f"got --join together with the script {script.target}",
                "ranks that join serve a running cluster and run no script",
                "leave one of them out",
            )
        )
    file = options.scheduler.scheduler_file
    if script is None and file is None and not options.report.check:
        raise OptionError(
            describe(
                "reading the command line",
                "got neither a script nor --scheduler-file",
                "a script to run, or a file through which clients connect, is needed",
                "add script.py, or --scheduler-file scheduler.json",
            )
        )
