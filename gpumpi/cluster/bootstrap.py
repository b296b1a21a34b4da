"""The start of one rank's part of a job, in the order that docs/architecture.md gives.

Every rank does the same steps; rank 0 judges twice. Nothing waits without a deadline,
and a rank that fails before it can talk through MPI says so itself.
"""

from __future__ import annotations

import faulthandler
import socket
import sys
import time
import traceback
import uuid
from typing import TYPE_CHECKING, Any

from gpumpi.cluster.orders import dask_config, scheduler_orders
from gpumpi.cluster.start import Go, Refused, Start
from gpumpi.cluster.verdict import (
    RankReport,
    Verdict,
    failure_text,
    judge,
    late_text,
    option_verdict,
)
from gpumpi.config import Options, Security, resolve
from gpumpi.errors import DeadlineError, GpumpiError, OptionError, StartError, describe
from gpumpi.features import load, versions
from gpumpi.log import Phase, log
from gpumpi.rank.guard import Guard
from gpumpi.rank.launcher import Launcher, LauncherName
from gpumpi.rank.limits import check_limits
from gpumpi.rank.mpi import Tag, join_world
from gpumpi.rank.signals import Reaction, Signals, Stopped
from gpumpi.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpumpi.cluster.job import Job
    from gpumpi.cluster.scratch import Scratch
    from gpumpi.cluster.security import Credentials
    from gpumpi.layout import Plan

__all__ = ["start_rank"]

_LATE_SECONDS = 2.0
_SPEAKER_SECONDS = 1.0
#: The others wait so much longer than rank 0, which names the silent ones.
_ANSWER_MARGIN_SECONDS = 10.0


def start_rank(start: Start, launcher: Launcher) -> Job:
    """Start this rank's part of the job. Collective over all ranks; main thread only.

    Returns
    -------
    Job
        On rank 0 with all workers up; on the others ready to serve.

    Raises
    ------
    Refused
        When the start failed, on all ranks; the cause has been said on rank 0.
    """
    # A crash in C code shows where Python was, on every rank.
    faulthandler.enable()
    try:
        rank = _Rank(start, launcher)
    except GpumpiError as error:
        # Nobody can be asked yet; the first local rank speaks for its host.
        # The others leave later: Open MPI ends the job at the first code that is not
        # 0, and the one that speaks might not have spoken yet.
        if not launcher.speaks_first:
            time.sleep(_SPEAKER_SECONDS)
            raise Refused(error.exit_code) from error
        log.problem(str(error))
        checking = bool(start.arguments.get("check"))
        raise Refused(2 if checking else error.exit_code) from error
    except Stopped as stop:
        raise Refused(stop.exit_code) from None
    try:
        return rank.start()
    except Stopped as stop:
        rank.failure.abort_quietly(stop.exit_code)
        raise AssertionError("abort does not return") from None
    except Exception as error:
        if not isinstance(error, Refused):
            # A fault of gpumpi itself must not leave the other ranks waiting.
            if not isinstance(error, GpumpiError):
                traceback.print_exc()
            rank.failure.end_job(f"the start failed: {failure_text(error)}")
        raise


class _Rank:
    """One rank on its way to a session."""

    def __init__(self, start: Start, launcher: Launcher) -> None:
        self.begin = time.monotonic()
        self.launcher = launcher
        self.wish = start
        self.host = socket.gethostname()
        self.scheduler: Any = None
        self.scratch: Scratch | None = None
        self.http_prefix = ""
        self.early_error: OptionError | None = None
        under_mpi = launcher.name is not LauncherName.NONE
        check_limits(local_ranks=(launcher.local_size or 1) if under_mpi else 0)
        self.guard = Guard(launcher)
        self.signals = Signals(self._abort_early)
        self.signals.on_first(self.guard.heard)
        try:
            self._begin()
        except BaseException:
            if self.scheduler is not None:
                self.scheduler.end(time.monotonic())
            self.signals.restore()
            self.guard.dismiss()
            raise

    def _begin(self) -> None:
        if self.launcher.rank == 0 and not self.wish.arguments.get("join"):
            from gpumpi.cluster.scheduler import SchedulerProcess

            self.scheduler = SchedulerProcess()
            self.guard.end_if_lost(self.scheduler.pid)
        try:
            self.options = resolve(self.wish.arguments)
        except OptionError as error:
            # Perhaps of this rank alone, which cannot speak before MPI_Init.
            self.options, self.early_error = Options(), error
        if self.options.cluster.join and self.scheduler is not None:
            self.scheduler.end(time.monotonic() + 1)  # joining was asked for elsewhere
            self.guard.forget_child(self.scheduler.pid)
            self.scheduler = None
        if self.options.cluster.join:
            # Moving what its workers hold may take as long as an end may.
            self.guard.grace(self.options.cluster.stop_timeout + _ANSWER_MARGIN_SECONDS)
        log.quiet = self.options.report.quiet
        self.deadline = self.begin + self.options.cluster.start_timeout
        self.guard.deadline(
            # The others leave it to rank 0 to say so; the launcher then ends them.
            self.options.cluster.start_timeout + (2 if self.launcher.rank else 0),
            f"rank {self.launcher.rank} on host {self.host}: MPI_Init has not returned "
            f"within {format_seconds(self.options.cluster.start_timeout)}; at least "
            "one rank has not come to it. Next: look for a host that cannot start "
            "Python, or raise --start-timeout",
        )
        speaks = self.launcher.rank == 0 and not log.quiet
        self.guard.in_mpi(
            f"gpumpi: waiting in MPI_Init for the other ranks ({_LATE_SECONDS:.0f} s)"
            if speaks
            else ""
        )
        self.world = join_world(self.launcher)
        self.guard.deadline(None)
        self.guard.watch_shared_memory()
        # Ranks may be born long before rank 0, which is to name the silent ones.
        self.patience = (
            time.monotonic()
            + self.options.cluster.start_timeout
            + _ANSWER_MARGIN_SECONDS
        )
        log.tag(f"r{self.world.rank}")
        from gpumpi.cluster.failure import Failure

        self.failure = Failure(self.world, self.host)
        if self.scheduler is not None:
            self.failure.before_abort = self.scheduler.expect_end
            self.signals.on_first(self._tell_of_signal)
        self.signals.on_second(self.failure.abort_quietly)

    def _tell_of_signal(self) -> None:
        self.scheduler.expect_losses()
        self.guard.heard()

    def _abort_early(self, code: int) -> None:
        raise Stopped(code - 128)

    # ------------------------------------------------------------ first verdict

    def start(self) -> Job:
        """Go through both verdicts."""
        go = self._first_verdict()
        return self._second_verdict(go)

    def _first_verdict(self) -> Go:
        try:
            report = self._look()
        except Exception as error:  # noqa: BLE001 - every cause is for the verdict
            report = RankReport.of_failure(self.world.rank, self.host, error)
        received = self.world.collect(
            report, Tag.FACTS, self.deadline, missing=self._late({})
        )
        if self.world.rank != 0:
            followed: Go = self._follow(Tag.ANSWER, "the first verdict")
            return followed
        verdict = judge(
            "the start",
            received,
            self.world.size,
            seconds=time.monotonic() - self.begin,
        )
        self._refuse_unless(verdict, received, Tag.ANSWER)
        try:
            go = self._plan({rank: r.facts for rank, r in received.items()})
        except GpumpiError as error:
            self._refuse_unless(option_verdict(error), received, Tag.ANSWER)
            raise
        self.world.tell(go, Tag.ANSWER, self.deadline)
        return go

    def _look(self) -> Any:
        """Import what the rank needs and read its host."""
        if self.early_error is not None:
            raise self.early_error
        if self.world.rank == 0:
            self.wish.prepare(self.options)
        load("distributed", why="to start a worker")
        from gpumpi.topology.host import read_host

        directory = self.options.report.log_dir
        try:
            log.configure(directory, f"rank-{self.world.rank:04d}")
        except OSError as error:
            raise StartError(
                describe(
                    f"opening a log file in {directory}",
                    f"{error.strerror}",
                    "a folder that this user may write to is needed",
                    "choose another --log-dir",
                )
            ) from error
        return RankReport(
            rank=self.world.rank,
            host=self.host,
            facts=read_host(),
            versions=versions(),
        )

    def _plan(self, hosts: Mapping[int, Any]) -> Go:
        from gpumpi.layout import make_plan

        if self.options.cluster.join:
            from gpumpi.cluster.join import read_cluster

            found = read_cluster(self.options, self.world.size, self.deadline)
            plan = make_plan(
                hosts, self.options, first_name=found.first_name, loopback=found.local
            )
            return Go(
                plan=plan,
                job=found.file.job,
                scheduler_address=found.file.address,
                credentials=found.credentials,
            )
        plan = make_plan(hosts, self.options)
        if self.options.report.check:
            self.wish.show_plan(plan, self.options, self.world, self.launcher)
            return Go(plan=plan, job="", scheduler_address="", credentials=None)
        credentials = None
        if self.options.cluster.security is Security.TLS:
            from gpumpi.cluster.security import Credentials

            credentials = Credentials.make()
        job = uuid.uuid4().hex[:12]
        scratch = self._make_scratch(job)
        scratch.check()
        address = self._start_scheduler(plan, credentials, scratch)
        by_host = {facts.identity: facts.gpus for facts in hosts.values()}
        return Go(
            plan=plan,
            job=job,
            scheduler_address=address,
            credentials=credentials,
            gpus_found=sum(by_host.values()),
        )

    def _start_scheduler(
        self, plan: Plan, credentials: Credentials | None, scratch: Scratch
    ) -> str:
        from gpumpi.cluster.dashboard import make_prefix

        self.http_prefix = make_prefix()
        orders = scheduler_orders(
            self.options,
            plan,
            credentials,
            scratch=scratch.path,
            script_folder=self.wish.path,
            http_prefix=self.http_prefix,
        )
        address: str = self.scheduler.configure(orders, self.deadline)
        return address

    # ----------------------------------------------------------- second verdict

    def _second_verdict(self, go: Go) -> Job:
        if self.options.report.check:
            self._finish_check()
        job = self._job(go)
        try:
            self._check_position(go.plan)
            if self.options.cluster.nanny:
                self.guard.remove_semaphores_if_lost()
            job.start_worker(self.deadline)
            report = RankReport(
                rank=self.world.rank, host=self.host, worker=job.worker_address
            )
        except Exception as error:  # noqa: BLE001 - every cause is for the verdict
            report = RankReport.of_failure(self.world.rank, self.host, error)
        hosts = {each.rank: each.host for each in go.plan.ranks}
        received = self.world.collect(
            report, Tag.STARTED, self.deadline, missing=self._late(hosts)
        )
        if self.world.rank != 0:
            self._follow(Tag.GO, "the second verdict", job)
        else:
            verdict = judge(
                "the start of the workers",
                received,
                self.world.size,
                seconds=time.monotonic() - self.begin,
                hosts_by_rank=hosts,
            )
            self._refuse_unless(verdict, received, Tag.GO, job)
            job.worker_addresses = {r: x.worker for r, x in received.items()}
            self.world.tell(verdict, Tag.GO, self.deadline)
        log.phase = Phase.RUNNING
        self.failure.install()
        self.signals.reaction = Reaction.NOTE
        if self.world.rank == 0:
            job.open_doors()
            self.wish.announce(job)
        return job

    def _job(self, go: Go) -> Job:
        import dask

        from gpumpi.cluster.job import Job

        scratch = self.scratch or self._make_scratch(go.job)
        dask.config.set(dask_config(scratch.path))
        if self.wish.path is not None and self.wish.path not in sys.path:
            sys.path.insert(0, self.wish.path)
        return Job(
            go=go,
            options=self.options,
            world=self.world,
            launcher=self.launcher,
            guard=self.guard,
            signals=self.signals,
            failure=self.failure,
            scheduler=self.scheduler,
            scratch=scratch,
            http_prefix=self.http_prefix,
        )

    def _make_scratch(self, job: str) -> Scratch:
        from gpumpi.cluster.scratch import Scratch

        base = self.options.worker.local_directory
        self.scratch = Scratch(base, job, self.world.rank, self.guard)
        return self.scratch

    def _check_position(self, plan: Plan) -> None:
        """Compare MPI's view of this host with the plan's, all ranks being alive."""
        me = plan.ranks[self.world.rank]
        seconds = max(0.1, self.deadline - time.monotonic())
        self.guard.deadline(
            seconds + _ANSWER_MARGIN_SECONDS,
            f"{me.host}, rank {me.rank}: MPI_Comm_split_type has not returned; a rank "
            "ended or froze between the two verdicts",
        )
        found = self.world.local_position()
        self.guard.deadline(None)
        if found != (me.local_rank, me.local_size):
            raise StartError(
                describe(
                    "comparing the ranks of this host",
                    f"MPI_Comm_split_type says local rank {found[0]} of {found[1]}",
                    f"host names and boot identities say {me.local_rank} of "
                    f"{me.local_size}",
                    "give every host (or container) a name of its own",
                )
            )
        # Only their number: with --map-by, Open MPI's local ranks are in another order.
        given = self.launcher.local_size
        if given is not None and given != found[1]:
            raise StartError(
                describe(
                    "comparing the ranks of this host",
                    f"MPI_Comm_split_type says {found[1]} local ranks",
                    f"{self.launcher.name} says {given}",
                    "start all ranks of a host with one launcher",
                )
            )

    def _finish_check(self) -> None:
        """End a run of ``--check``: the plan stands, nothing was started."""
        if self.scheduler is not None:
            self.scheduler.end(time.monotonic() + 2)
        self.signals.restore()
        self.guard.leave(self.options.cluster.stop_timeout, "the end took too long")
        raise Refused(0)

    # ------------------------------------------------------------------ helpers

    def _late(self, hosts: Mapping[int, str]) -> Callable[[list[int], float], None]:
        """Say every two seconds which ranks are late."""
        said = 0.0

        def missing(absent: list[int], seconds: float) -> None:
            nonlocal said
            since = time.monotonic() - self.begin
            if since > said + _LATE_SECONDS:
                said = since
                log.notice(late_text(absent, since, hosts))

        return missing

    def _follow(self, tag: Tag, what: str, job: Job | None = None) -> Any:
        """Wait for rank 0's answer; leave when it is no."""
        try:
            answer = self.world.listen(tag, self.patience, what)
        except DeadlineError as error:
            self.failure.end_job(str(error))
        if isinstance(answer, Verdict) and not answer.go:
            if job is not None:
                job.abandon()
            self._leave_refused(0)
        return answer

    def _refuse_unless(
        self,
        verdict: Verdict,
        received: Mapping[int, Any],
        tag: Tag,
        job: Job | None = None,
    ) -> None:
        """Give the bad verdict to all and leave; ranks that are silent need Abort."""
        if verdict.go:
            return
        if self.options.report.check:
            verdict = type(verdict)(go=False, text=verdict.text, exit_code=2)
        if len(received) < self.world.size:
            self.failure.say_and_abort(verdict.text, verdict.exit_code)
        self.world.tell(verdict, tag, time.monotonic() + _ANSWER_MARGIN_SECONDS)
        if job is not None:
            job.abandon()
        log.problem(verdict.text)
        self._leave_refused(verdict.exit_code)

    def _leave_refused(self, code: int) -> None:
        log.phase = Phase.ENDING
        if self.scheduler is not None:
            self.scheduler.end(time.monotonic() + 2)
        self.signals.restore()
        self.guard.leave(
            self.options.cluster.stop_timeout,
            f"rank {self.world.rank} on host {self.host}: the end took too long",
        )
        raise Refused(code)
