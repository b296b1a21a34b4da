from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumpi.config import Options, resolve
from gpumpi.errors import OptionError, StartError
from gpumpi.layout import Plan, make_plan
from gpumpi.topology.host import HostFacts

GIB = 2**30


def host(name: str = "n0", **changes: Any) -> HostFacts:
    """A host of 4 cores and 16 GiB, as one of its ranks sees it."""
    facts: dict[str, Any] = {
        "name": name,
        "identity": f"{name} boot",
        "cpus": (0, 1, 2, 3),
        "cpu_quota": math.inf,
        "memory_bytes": 16 * GIB,
        "addresses": {"lo": "127.0.0.1", "eth0": f"10.0.0.{len(name)}"},
        "default_address": f"10.0.0.{len(name)}",
        "gpus": 0,
    }
    return HostFacts(**(facts | changes))


def options(**given: Any) -> Options:
    return resolve(given, environment={}, dask_config={})


def plan(*hosts: HostFacts, first_name: int = 0, loopback: bool = True, **given: Any):
    return make_plan(
        dict(enumerate(hosts)),
        options(**given),
        first_name=first_name,
        loopback=loopback,
    )


def column(found: Plan, name: str) -> list[Any]:
    return [getattr(each, name) for each in found.ranks]


# ------------------------------------------------------------------ positions


def test_one_rank_has_all_of_its_host_and_listens_on_loopback() -> None:
    found = plan(host())
    (only,) = found.ranks
    assert only.rank == only.local_rank == only.name == 0
    assert (only.local_size, only.nthreads, only.cpus) == (1, 4, 4)
    assert only.memory_limit_bytes == 16 * GIB
    assert only.host == "n0"
    assert only.worker
    assert only.address == found.scheduler_address == "127.0.0.1"
    assert found.workers == found.ranks


def test_ranks_of_one_host_are_counted_in_order() -> None:
    found = plan(*[host()] * 3)
    assert column(found, "rank") == [0, 1, 2]
    assert column(found, "local_rank") == [0, 1, 2]
    assert column(found, "local_size") == [3, 3, 3]
    assert column(found, "name") == [0, 1, 2]


def test_ranks_dealt_to_two_hosts_in_turn_are_counted_on_each() -> None:
    found = plan(host("a"), host("bb"), host("a"), host("bb"), host("a"))
    assert column(found, "local_rank") == [0, 0, 1, 1, 2]
    assert column(found, "local_size") == [3, 2, 3, 2, 3]
    assert column(found, "host") == ["a", "bb", "a", "bb", "a"]


def test_hosts_of_one_name_are_told_apart_by_their_identity() -> None:
    found = plan(host(identity="n0 boot1"), host(identity="n0 boot2"))
    assert column(found, "local_size") == [1, 1]
    assert column(found, "address") == ["10.0.0.2", "10.0.0.2"]


# -------------------------------------------------------------------- threads


def test_equal_core_sets_are_divided() -> None:
    assert column(plan(*[host()] * 2), "nthreads") == [2, 2]


def test_disjoint_core_sets_are_kept_whole() -> None:
    found = plan(host(cpus=(0,)), host(cpus=(1, 2, 3)))
    assert column(found, "nthreads") == [1, 3]
    assert column(found, "cpus") == [1, 3]


def test_of_overlapping_core_sets_only_the_common_part_is_divided() -> None:
    found = plan(host(cpus=(0, 1, 2, 3)), host(cpus=(2, 3, 4, 5)))
    assert column(found, "nthreads") == [3, 3]


def test_cores_of_one_number_on_two_hosts_are_not_shared() -> None:
    assert column(plan(host("a"), host("bb")), "nthreads") == [4, 4]


def test_more_ranks_than_cores_get_one_thread_each() -> None:
    found = plan(*[host(cpus=(0, 1))] * 5)
    assert column(found, "nthreads") == [1] * 5


@pytest.mark.parametrize("ranks", range(1, 50))
def test_rounding_never_costs_a_thread(ranks: int) -> None:
    found = plan(*[host(cpus=tuple(range(3 * ranks)))] * ranks)
    assert column(found, "nthreads") == [3] * ranks


@pytest.mark.parametrize(
    ("quota", "ranks", "threads"),
    [(2.0, 1, 2), (2.0, 2, 1), (1.5, 1, 1), (0.5, 1, 1), (3.0, 2, 1), (8.0, 1, 4)],
)
def test_the_quota_of_the_control_group_bounds_the_threads(
    quota: float, ranks: int, threads: int
) -> None:
    found = plan(*[host(cpu_quota=quota)] * ranks)
    assert column(found, "nthreads") == [threads] * ranks


def test_threads_that_were_asked_for_are_taken() -> None:
    found = plan(*[host(cpu_quota=1.0)] * 2, nthreads=7)
    assert column(found, "nthreads") == [7, 7]


# --------------------------------------------------------------------- memory


def test_memory_is_divided_among_the_ranks_of_a_host() -> None:
    found = plan(host("a"), host("bb", memory_bytes=9 * GIB), host("a"))
    assert column(found, "memory_limit_bytes") == [8 * GIB, 9 * GIB, 8 * GIB]


def test_memory_that_was_asked_for_is_per_rank() -> None:
    found = plan(*[host()] * 2, memory_limit="3GiB")
    assert column(found, "memory_limit_bytes") == [3 * GIB, 3 * GIB]


# ------------------------------------------------------------------ dedicated


def test_a_dedicated_rank_needs_another_to_work() -> None:
    with pytest.raises(OptionError) as caught:
        plan(host(), layout="dedicated")
    assert "got --layout dedicated with 1 rank" in str(caught.value)
    assert "mpirun -n 2" in str(caught.value)


def test_a_dedicated_rank_holds_no_worker_and_takes_no_share() -> None:
    found = plan(*[host()] * 3, layout="dedicated")
    assert column(found, "worker") == [False, True, True]
    assert [each.rank for each in found.workers] == [1, 2]
    assert [each.nthreads for each in found.workers] == [2, 2]
    assert [each.memory_limit_bytes for each in found.workers] == [8 * GIB] * 2


def test_two_ranks_may_be_dedicated() -> None:
    found = plan(*[host()] * 2, layout="dedicated")
    assert [(each.name, each.nthreads) for each in found.workers] == [(1, 4)]
    assert found.workers[0].memory_limit_bytes == 16 * GIB


def test_a_dedicated_rank_alone_on_its_host_is_planned_too() -> None:
    found = plan(host("a"), host("bb"), layout="dedicated")
    assert column(found, "worker") == [False, True]
    assert found.ranks[0].nthreads >= 1


# ------------------------------------------------------------------ addresses


def test_ranks_of_two_hosts_listen_towards_other_hosts() -> None:
    found = plan(host("a"), host("bb"))
    assert column(found, "address") == ["10.0.0.1", "10.0.0.2"]
    assert found.scheduler_address == "10.0.0.1"


def test_a_host_that_others_cannot_reach_is_refused_with_its_interfaces() -> None:
    lost = host("bb", default_address="127.0.1.1")
    with pytest.raises(OptionError) as caught:
        plan(host("a"), lost)
    text = str(caught.value)
    assert "rank 1 on host bb would take 127.0.1.1" in text
    assert "found there: eth0 (10.0.0.2), lo (127.0.0.1)" in text
    assert "Next: choose one with --interface" in text
    assert column(plan(host("a"), lost, interface="eth0"), "address")[1] == "10.0.0.2"
    assert plan(lost, lost).scheduler_address == "127.0.0.1"


def test_ranks_that_join_from_elsewhere_do_not_hide_on_loopback() -> None:
    found = plan(host(), host(), loopback=False)
    assert column(found, "address") == ["10.0.0.2", "10.0.0.2"]


def test_an_interface_that_was_asked_for_goes_before_loopback() -> None:
    found = plan(host(), interface="eth0")
    assert found.scheduler_address == "10.0.0.2"


def test_each_rank_listens_on_its_own_address_of_the_interface() -> None:
    hosts = [
        host("a", addresses={"ib0": "1.1.1.1"}),
        host("bb", addresses={"ib0": "1.1.1.2"}),
    ]
    assert column(plan(*hosts, interface="ib0"), "address") == ["1.1.1.1", "1.1.1.2"]


def test_an_interface_that_one_rank_lacks_is_refused_with_what_was_found() -> None:
    with pytest.raises(OptionError) as caught:
        plan(host("a", addresses={"ib0": "1.1.1.1"}), host("bb"), interface="ib0")
    text = str(caught.value)
    assert "rank 1 on host bb has no interface 'ib0'" in text
    assert "found there: eth0 (10.0.0.2), lo (127.0.0.1)" in text


# ---------------------------------------------------------------------- names


def test_ranks_that_join_are_named_from_the_first_free_number() -> None:
    found = plan(*[host()] * 3, first_name=5)
    assert column(found, "name") == [5, 6, 7]
    assert column(found, "rank") == [0, 1, 2]


# ----------------------------------------------------------------------- gpus


@pytest.mark.parametrize("gpus", ["auto", "none"])
def test_cpu_workers_are_planned_whatever_gpus_are_there(gpus: str) -> None:
    assert len(plan(host(gpus=0), host(gpus=4), gpus=gpus).workers) == 2


def test_gpus_that_a_rank_lacks_are_refused_with_its_name() -> None:
    with pytest.raises(OptionError) as caught:
        plan(host("a", gpus=4), host("bb", gpus=0), gpus="0,1")
    text = str(caught.value)
    assert "got --gpus 0,1" in text
    assert "rank 1 on host bb has no GPU" in text


def test_gpus_that_are_there_are_refused_by_this_version() -> None:
    with pytest.raises(StartError, match="starts CPU workers only"):
        plan(host(gpus=4), gpus="0")


# ----------------------------------------------------------------- properties

CORES = st.sets(st.integers(0, 15), min_size=1).map(lambda cpus: tuple(sorted(cpus)))


@st.composite
def clusters(draw: st.DrawFn) -> list[HostFacts]:
    """Ranks on a few hosts; those of one host may be bound to sets of their own."""
    names = draw(st.lists(st.sampled_from(["a", "bb", "ccc"]), min_size=2, max_size=12))
    sets = {name: draw(st.lists(CORES, min_size=1, max_size=3)) for name in names}
    quota = draw(st.sampled_from([math.inf, 0.5, 2.0, 7.5]))
    return [
        host(name, cpus=draw(st.sampled_from(sets[name])), cpu_quota=quota)
        for name in names
    ]


@given(clusters(), st.sampled_from(["shared", "dedicated"]))
def test_local_ranks_are_counted_from_0_in_rank_order(hosts, layout) -> None:
    found = plan(*hosts, layout=layout)
    local = defaultdict(list)
    for each in found.ranks:
        local[each.host].append(each)
    for ranks in local.values():
        assert [each.local_rank for each in ranks] == list(range(len(ranks)))
        assert {each.local_size for each in ranks} == {len(ranks)}
        assert [each.rank for each in ranks] == sorted(each.rank for each in ranks)


@given(clusters(), st.sampled_from(["shared", "dedicated"]))
def test_auto_threads_fit_the_cores_of_each_host(hosts, layout) -> None:
    found = plan(*hosts, layout=layout)
    assert all(each.nthreads >= 1 for each in found.ranks)
    for name in {each.host for each in found.workers}:
        ranks = [each for each in found.workers if each.host == name]
        cores = {cpu for each in ranks for cpu in hosts[each.rank].cpus}
        # A rank whose share is below one core has a thread all the same.
        assert sum(each.nthreads for each in ranks) <= len(cores) + len(ranks) - 1


@given(CORES, st.integers(1, 12), st.sampled_from(["shared", "dedicated"]))
def test_ranks_that_share_a_core_set_have_no_more_threads_than_cores_or_ranks(
    cpus, ranks, layout
) -> None:
    found = plan(*[host(cpus=cpus)] * (ranks + 1), layout=layout)
    threads = [each.nthreads for each in found.workers]
    assert len(set(threads)) == 1
    assert sum(threads) <= max(len(cpus), len(threads))
    # Less than one core per rank is left over.
    assert sum(threads) > len(cpus) - len(threads)


@given(clusters(), st.sampled_from(["shared", "dedicated"]))
def test_auto_memory_fits_each_host(hosts, layout) -> None:
    found = plan(*hosts, layout=layout)
    for name in {each.host for each in found.workers}:
        ranks = [each for each in found.workers if each.host == name]
        total = sum(each.memory_limit_bytes for each in ranks)
        assert 16 * GIB - len(ranks) < total <= 16 * GIB


@given(clusters())
def test_a_plan_is_a_function_of_what_the_ranks_saw(hosts) -> None:
    assert plan(*hosts) == plan(*hosts)
