"""The plan: which rank does what, with how much. Pure; nothing is touched here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpumpi.config import Layout, Options
from gpumpi.errors import OptionError, StartError, describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpumpi.topology.host import HostFacts

__all__ = ["Plan", "RankPlan", "make_plan"]

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class RankPlan:
    """What one rank is to do.

    Attributes
    ----------
    rank, local_rank, local_size : int
        Numbers in the job and on the host.
    host : str
        Name of the host.
    worker : bool
        Whether the rank holds a worker.
    name : int
        Name of its worker: the rank, or a free number for ranks that join.
    nthreads : int
        Threads that run tasks.
    memory_limit_bytes : int
        Host memory of the worker.
    address : str
        Address that the worker listens on.
    cpus : int
        Cores that the rank may run on.
    """

    rank: int
    host: str
    local_rank: int
    local_size: int
    worker: bool
    name: int
    nthreads: int
    memory_limit_bytes: int
    address: str
    cpus: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all ranks are to do, and where the scheduler listens."""

    ranks: tuple[RankPlan, ...]
    scheduler_address: str

    @property
    def workers(self) -> tuple[RankPlan, ...]:
        """The ranks that hold a worker."""
        return tuple(plan for plan in self.ranks if plan.worker)


def make_plan(
    hosts: Mapping[int, HostFacts],
    options: Options,
    *,
    first_name: int = 0,
    loopback: bool = True,
) -> Plan:
    """Make the plan out of what all ranks saw.

    Parameters
    ----------
    hosts : mapping of int to HostFacts
        By rank, one for each of 0..N-1.
    options : Options
        Of rank 0, which speak for the job.
    first_name : int
        Name of the first worker; above 0 for ranks that join a cluster.
    loopback : bool
        Whether ranks that share one host may listen on its loopback alone.

    Raises
    ------
    OptionError
        When the options do not fit the ranks, e.g. an interface that a rank lacks.
    """
    size = len(hosts)
    dedicated = options.cluster.layout is Layout.DEDICATED
    if dedicated and size == 1:
        raise OptionError(
            describe(
                "planning the layout",
                "got --layout dedicated with 1 rank",
                "it needs at least 2 ranks, one of them without a worker",
                "start more ranks (mpirun -n 2 ...) or use --layout shared",
            )
        )
    _check_gpus(hosts, options)
    members: dict[str, list[int]] = {}
    for rank in range(size):
        members.setdefault(hosts[rank].identity, []).append(rank)
    one_host = len(members) == 1 and loopback
    plans = []
    for rank in range(size):
        facts = hosts[rank]
        local = members[facts.identity]
        working = [r for r in local if not (dedicated and r == 0)]
        plans.append(
            RankPlan(
                rank=rank,
                host=facts.name,
                local_rank=local.index(rank),
                local_size=len(local),
                worker=not (dedicated and rank == 0),
                name=first_name + rank,
                nthreads=_threads(rank, working, hosts, options),
                memory_limit_bytes=_memory(len(working), facts, options),
                address=_address(rank, facts, options, one_host=one_host),
                cpus=len(facts.cpus),
            )
        )
    return Plan(ranks=tuple(plans), scheduler_address=plans[0].address)


def _threads(
    rank: int, local: list[int], hosts: Mapping[int, HostFacts], options: Options
) -> int:
    """Cores of this rank; a core bound to k ranks counts 1/k for each."""
    if options.worker.nthreads != "auto":
        return int(options.worker.nthreads)
    sharing = Counter(cpu for other in local for cpu in hosts[other].cpus)
    if rank not in local:
        return 1
    share = sum(1 / sharing[cpu] for cpu in hosts[rank].cpus)
    quota = hosts[rank].cpu_quota / len(local)
    # 3 ranks on 2 cores share 0.67 cores each; float noise must not cost a thread.
    return max(1, int(min(share, quota) + 1e-9))


def _memory(working: int, facts: HostFacts, options: Options) -> int:
    if options.worker.memory_limit != "auto":
        return int(options.worker.memory_limit)
    return facts.memory_bytes // max(working, 1)


def _address(rank: int, facts: HostFacts, options: Options, *, one_host: bool) -> str:
    interface = options.worker.interface
    if interface is None and one_host:
        return _LOOPBACK
    if interface is None:
        if facts.default_address.startswith("127."):
            raise OptionError(
                describe(
                    "choosing an address that other hosts reach",
                    f"rank {rank} on host {facts.name} would take "
                    f"{facts.default_address}",
                    f"found there: {_listed(facts)}",
                    "choose one with --interface",
                )
            )
        return facts.default_address
    if interface not in facts.addresses:
        raise OptionError(
            describe(
                "choosing the network interface",
                f"rank {rank} on host {facts.name} has no interface {interface!r}",
                f"found there: {_listed(facts)}",
                "choose one that every host has, or leave --interface out",
            )
        )
    return facts.addresses[interface]


def _listed(facts: HostFacts) -> str:
    return ", ".join(f"{k} ({v})" for k, v in sorted(facts.addresses.items()))


def _check_gpus(hosts: Mapping[int, HostFacts], options: Options) -> None:
    wanted = options.worker.gpus
    if isinstance(wanted, str):
        return
    for rank, facts in sorted(hosts.items()):
        if facts.gpus == 0:
            raise OptionError(
                describe(
                    "choosing the GPUs",
                    f"got --gpus {','.join(wanted)}",
                    f"rank {rank} on host {facts.name} has no GPU that the NVIDIA "
                    "driver shows",
                    "leave --gpus out, write --gpus none, or use a node with GPUs",
                )
            )
    raise StartError(
        describe(
            "choosing the GPUs",
            f"got --gpus {','.join(wanted)}",
            "this version of gpumpi starts CPU workers only",
            "leave --gpus out or write --gpus none",
        )
    )
