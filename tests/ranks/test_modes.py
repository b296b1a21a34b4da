"""What a user types, and what the script then finds: modes, layouts, options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ranks.support import Jobs, assert_failed, assert_good

if TYPE_CHECKING:
    from helpers.launcher import Launcher
    from helpers.result import JobResult

pytestmark = pytest.mark.ranks

FACTS = """
import sys
from dask.distributed import Client, get_worker
from results import save
import beside

def in_task():
    import beside
    return beside.VALUE, get_worker().name

client = Client()
info = client.scheduler_info(n_workers=-1)
futures = [client.submit(in_task, workers=n, pure=False) for n in range(2)]
save("facts", {
    "argv": sys.argv,
    "name": __name__,
    "file": __file__,
    "beside": beside.VALUE,
    "workers": client.gather(futures),
    "tls": client.scheduler.address,
    "encrypted": client.security.require_encryption,
    "info": {w["name"]: [w["nthreads"], w["memory_limit"]]
             for w in info["workers"].values()},
})
print("the script's own words")
"""

WORKERS = """
from dask.distributed import Client
from results import save

with Client() as client:
    info = client.scheduler_info(n_workers=-1)["workers"].values()
    total = client.submit(sum, [1, 2, 3]).result()
save("workers", {
    "total": total,
    "of": {w["name"]: [w["nthreads"], w["memory_limit"]] for w in info},
})
"""


@pytest.fixture(scope="module")
def script_job(shared_jobs: Jobs) -> JobResult:
    """Return the end of one job on two ranks, which saves what its script found."""
    shared_jobs.write("VALUE = 'from beside'", name="beside.py")
    path = shared_jobs.write(FACTS, name="facts.py")
    return shared_jobs.run(path, "a b", "--nthreads", "7", cwd="/")


def test_a_script_runs_as_main_with_its_own_arguments(
    script_job: JobResult, shared_jobs: Jobs
) -> None:
    assert_good(script_job)
    facts = shared_jobs.saved("facts")
    path = str(shared_jobs.folder / "facts.py")
    assert facts["argv"] == [path, "a b", "--nthreads", "7"]
    assert facts["name"] == "__main__"
    assert facts["file"] == path
    assert "the script's own words\n" in script_job.stdout


def test_modules_beside_the_script_import_in_tasks_of_every_rank(
    script_job: JobResult, shared_jobs: Jobs
) -> None:
    facts = shared_jobs.saved("facts")
    assert facts["beside"] == "from beside"
    assert facts["workers"] == [["from beside", 0], ["from beside", 1]]


def test_a_bare_client_is_encrypted(script_job: JobResult, shared_jobs: Jobs) -> None:
    facts = shared_jobs.saved("facts")
    assert facts["tls"].startswith("tls://127.0.0.1:")
    assert facts["encrypted"] is True


def test_each_rank_has_its_share_of_cores_and_memory(
    script_job: JobResult, shared_jobs: Jobs
) -> None:
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    threads = max(1, CPU_COUNT // 2)
    expected = {str(rank): [threads, MEMORY_LIMIT // 2] for rank in range(2)}
    assert shared_jobs.saved("facts")["info"] == expected


def test_the_banner_tells_what_runs_where(
    script_job: JobResult, launcher: Launcher
) -> None:
    head, table = script_job.stdout.split("gpumpi ", 1)[1].split("\n", 1)
    mpi = "MPICH" if launcher.is_mpich else "Open MPI"
    for words in ("2 ranks", "1 host", "2 CPU workers", mpi, "tcp with TLS"):
        assert words in head, str(script_job)
    for rank in range(2):
        rows = [row.split() for row in table.splitlines() if row.strip()]
        row = next(row for row in rows if row[0] == str(rank))
        assert row[-1].startswith("tls://127.0.0.1:"), str(script_job)
    assert "dashboard: http://127.0.0.1:" in table
    assert "ssh -N -L " in table
    assert "SECURITY IS OFF" not in script_job.stdout


def test_quiet_leaves_the_screen_to_the_script(jobs: Jobs) -> None:
    result = jobs.run("print('all there is')", options=["--quiet"])
    assert_good(result)
    assert result.stdout == "all there is\n"


def test_a_module_runs_as_main(jobs: Jobs) -> None:
    package = jobs.folder / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "value.py").write_text("VALUE = 'pack'")
    jobs.write(
        """
        import sys
        from dask.distributed import Client
        from pack.value import VALUE
        from results import save

        def in_task():
            from pack.value import VALUE
            return VALUE

        values = sorted(Client().run(in_task).values())
        save("module", [__name__, sys.argv[1:], __spec__.name, VALUE, values])
        """,
        name="pack/tool.py",
    )
    result = jobs.run(["pack.tool"], "-x", options=["-m"], cwd=jobs.folder)
    assert_good(result)
    expected = ["__main__", ["-x"], "pack.tool", "pack", ["pack", "pack"]]
    assert jobs.saved("module") == expected


@pytest.mark.parametrize("mpirun", [True, False], ids=["mpirun", "no-launcher"])
def test_one_rank_is_a_whole_cluster(jobs: Jobs, mpirun: bool) -> None:
    result = jobs.run(WORKERS, ranks=1, mpirun=mpirun)
    assert_good(result)
    assert jobs.saved("workers")["total"] == 6
    assert list(jobs.saved("workers")["of"]) == ["0"]
    assert "1 rank | 1 host | 1 CPU worker |" in result.stdout
    assert ("no launcher, no MPI" in result.stdout) is not mpirun


def test_four_ranks_are_four_workers_and_mpi_works_in_their_tasks(jobs: Jobs) -> None:
    result = jobs.run(
        """
        from dask.distributed import Client, get_worker
        from results import save

        def allreduce(value):
            from mpi4py import MPI
            comm = MPI.COMM_WORLD
            return comm.rank, get_worker().name, comm.allreduce(value)

        client = Client()
        futures = [
            client.submit(allreduce, 10**rank, workers=rank, pure=False)
            for rank in range(4)
        ]
        save("sums", client.gather(futures))
        """,
        ranks=4,
    )
    assert_good(result)
    assert jobs.saved("sums") == [[rank, rank, 1111] for rank in range(4)]


def test_dedicated_keeps_rank_zero_free_of_tasks(jobs: Jobs) -> None:
    result = jobs.run(WORKERS, ranks=3, options=["--layout", "dedicated"])
    assert_good(result)
    assert jobs.saved("workers")["total"] == 6
    assert sorted(jobs.saved("workers")["of"]) == ["1", "2"]
    assert "rank 0 dedicated" in result.stdout


CHOSEN = {"0": [3, 2**30], "1": [3, 2**30]}


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["--nthreads", 3, "--memory-limit", "1GiB"], {"GPUMPI_NTHREADS": "5"}),
        (
            [],
            {
                "GPUMPI_NTHREADS": "3",
                "GPUMPI_MEMORY_LIMIT": "1GiB",
                "DASK_GPUMPI__NTHREADS": "5",
            },
        ),
        ([], {"DASK_GPUMPI__NTHREADS": "3", "DASK_GPUMPI__MEMORY_LIMIT": "1GiB"}),
    ],
    ids=["arguments", "environment", "dask-config"],
)
def test_each_source_of_options_gives_the_same_workers(
    jobs: Jobs, options: list[str], env: dict[str, str]
) -> None:
    result = jobs.run(WORKERS, options=options, env=env)
    assert_good(result)
    assert jobs.saved("workers")["of"] == CHOSEN


def test_keyword_arguments_give_the_same_workers(jobs: Jobs) -> None:
    text = "import gpumpi\ngpumpi.initialize(nthreads=3, memory_limit='1GiB')\n"
    result = jobs.run(text + WORKERS, gpumpi=False, env={"GPUMPI_NTHREADS": "5"})
    assert_good(result)
    assert jobs.saved("workers")["of"] == CHOSEN


def test_resources_and_preloads_reach_every_worker(jobs: Jobs) -> None:
    jobs.write("def dask_setup(worker):\n    worker.mark = 'set up'\n", name="pre.py")
    result = jobs.run(
        """
        from dask.distributed import Client
        from results import save

        client = Client()
        marks = client.run(lambda dask_worker: dask_worker.mark)
        info = client.scheduler_info(n_workers=-1)["workers"].values()
        save("found", [sorted(marks.values()), [w["resources"] for w in info]])
        """,
        options=["--preload", jobs.folder / "pre.py", "--resources", "GPU=1,MEM=2"],
    )
    assert_good(result)
    resources = {"GPU": 1.0, "MEM": 2.0}
    assert jobs.saved("found") == [["set up"] * 2, [resources] * 2]


@pytest.mark.parametrize("door", [["-m", "gpumpi", "run"], ["-m", "dask", "gpumpi"]])
def test_every_door_runs_the_script(jobs: Jobs, door: list[str]) -> None:
    words = [*door, "run"] if "dask" in door else door
    script = jobs.write(WORKERS)
    result = jobs.run([*words, "--nthreads", "2", script], gpumpi=False)
    assert_good(result)
    assert [n for n, _ in jobs.saved("workers")["of"].values()] == [2, 2]


def test_check_prints_the_plan_and_starts_nothing(jobs: Jobs) -> None:
    script = jobs.write("from results import save\nsave('ran', True)")
    result = jobs.run(script, ranks=3, options=["--check", "--nthreads", 2])
    assert_good(result)
    assert "3 ranks | 1 host | 3 CPU workers" in result.stdout
    assert "nothing was started" in result.stdout
    assert "tls://" not in result.stdout
    assert "dashboard" not in result.stdout
    assert not (jobs.results / "ran.json").exists()


def test_check_without_a_script_is_enough(jobs: Jobs) -> None:
    assert_good(jobs.run([], options=["--check"]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--interface", "nosuch0"], ["rank 0", "no interface 'nosuch0'", "lo ("]),
        (["--preload", "x", "--gpus", "0"], ["--gpus 0", "rank 0"]),
    ],
    ids=["interface", "gpus"],
)
def test_check_of_a_plan_that_fails_ends_with_2(
    jobs: Jobs, options: list[str], words: list[str]
) -> None:
    result = jobs.run("", options=["--check", *options])
    assert_failed(result, *words, code=2)
    assert "nothing was started" not in result.stdout


def test_log_dir_gets_one_file_per_process_tagged_by_rank(jobs: Jobs) -> None:
    logs = jobs.folder / "new" / "logs"
    result = jobs.run(WORKERS, options=["--log-dir", logs])
    assert_good(result)
    names = sorted(path.name for path in logs.iterdir())
    assert names == ["rank-0000.log", "rank-0001.log", "scheduler.log"]
    for name, tag in zip(names, ("r0", "r1", "scheduler"), strict=True):
        lines = (logs / name).read_text().splitlines()
        records = [line for line in lines if line.startswith("20")]  # with a date
        assert records, name
        assert all(line.split()[2] == tag for line in records), (name, lines)
