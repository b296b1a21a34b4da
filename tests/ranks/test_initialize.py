"""``gpumpi.initialize()`` inside a user's own script."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ranks.support import (
    assert_failed,
    assert_good,
    assert_silent,
    end_of,
    foreign_lines,
    gpumpi_lines,
)

if TYPE_CHECKING:
    from ranks.support import Jobs

pytestmark = [pytest.mark.ranks, pytest.mark.pythons]

RANK = "int(os.environ.get('PMI_RANK', os.environ.get('OMPI_COMM_WORLD_RANK', '0')))"

SESSION = """
import gpumpi
session = gpumpi.initialize()
from dask.distributed import Client
from results import save

save("session", {
    "same": gpumpi.initialize() is session and gpumpi.initialize(nthreads=9) is session,
    "client": session.client.submit(sum, [1, 2]).result(),
    "bare": Client().submit(sum, [3, 4]).result(),
    "one client": session.client is session.client,
    "ranks": [[r.rank, r.host, r.gpu, r.worker] for r in session.ranks],
    "workers": {w["name"]: address for address, w in
                session.client.scheduler_info(n_workers=-1)["workers"].items()},
    "link": session.dashboard_link,
})
print("the end of the script")
"""


@pytest.mark.parametrize("ranks", [3, 0], ids=["3-ranks", "no-launcher"])
def test_a_session_knows_its_ranks_and_a_bare_client_finds_it(
    jobs: Jobs, ranks: int
) -> None:
    result = jobs.run(SESSION, ranks=ranks, gpumpi=False, mpirun=bool(ranks))
    assert_good(result)
    # Ranks other than 0 serve inside the call, and never come to this line.
    assert result.stdout.count("the end of the script") == 1
    found = jobs.saved("session")
    assert found["same"] is True
    assert found["one client"] is True
    assert (found["client"], found["bare"]) == (3, 7)
    assert [row[0] for row in found["ranks"]] == list(range(ranks or 1))
    assert {str(row[0]): row[3] for row in found["ranks"]} == found["workers"]
    assert {row[2] for row in found["ranks"]} == {None}
    assert found["link"].endswith("/status")


def test_the_cluster_ends_with_its_block_and_the_script_goes_on(jobs: Jobs) -> None:
    result = jobs.run(
        """
        import os, time
        import gpumpi
        from results import save

        with gpumpi.initialize() as session:
            session.client.submit(sum, [1, 2]).result()
        found = {}
        for name, act in {
            "client": lambda: session.client,
            "again": gpumpi.initialize,
        }.items():
            try:
                act()
            except gpumpi.SessionError as error:
                found[name] = str(error)
        session.close()  # a second end does nothing
        time.sleep(1.5)
        save("errors", found)
        raise SystemExit(3)
        """,
        gpumpi=False,
    )
    assert_silent(result, 3)
    errors = jobs.saved("errors")
    assert "the session has ended" in errors["client"]
    assert "the session of this process has ended" in errors["again"]


def test_an_exception_in_the_block_ends_all_and_is_shown_once(jobs: Jobs) -> None:
    result = jobs.run(
        """
        import gpumpi
        with gpumpi.initialize() as session:
            future = session.client.submit(sum, [1, 2])
            raise RuntimeError("in the block")
        """,
        gpumpi=False,
        ranks=3,
    )
    assert result.code == 1, str(result)
    assert not result.leftovers, str(result)
    assert result.stderr.count("Traceback") == 1, str(result)
    assert foreign_lines(result)[-1] == "RuntimeError: in the block"
    assert gpumpi_lines(result) == []


@pytest.mark.parametrize(
    ("last", "code", "words"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no input')", 1, "no input"),
        ("raise ValueError('no good')", 1, "ValueError: no good"),
    ],
    ids=["exit-code", "exit-text", "exception"],
)
def test_the_job_ends_with_the_code_of_the_script(
    jobs: Jobs, last: str, code: int, words: str
) -> None:
    text = f"import sys, gpumpi\nclient = gpumpi.initialize().client\n{last}\n"
    result = jobs.run(text, gpumpi=False)
    assert result.code == code, str(result)
    assert not result.leftovers, str(result)
    assert "".join(foreign_lines(result)[-1:]) == words, str(result)
    assert gpumpi_lines(result) == []
    assert result.stderr.count("Traceback") == (words.startswith("ValueError"))


def test_what_ranks_do_before_and_after_is_theirs(jobs: Jobs) -> None:
    result = jobs.run(
        f"""
        import atexit, os
        rank = {RANK}
        from results import save
        save(f"before-{{rank}}", True)
        atexit.register(save, f"atexit-{{rank}}", True)
        import gpumpi
        gpumpi.initialize(layout="dedicated")
        save(f"after-{{rank}}", True)
        """,
        gpumpi=False,
    )
    assert_good(result)
    names = sorted(path.stem for path in jobs.results.iterdir())
    assert names == ["after-0", "atexit-0", "atexit-1", "before-0", "before-1"]


def test_only_the_main_thread_may_start_a_session(jobs: Jobs) -> None:
    result = jobs.run(
        f"""
        import os, threading
        import gpumpi
        from results import save

        def act():
            try:
                gpumpi.initialize()
            except gpumpi.SessionError as error:
                save(f"refused-{{{RANK}}}", str(error))

        thread = threading.Thread(target=act, name="side")
        thread.start()
        thread.join()
        """,
        gpumpi=False,
    )
    assert_good(result)
    for rank in range(2):
        text = jobs.saved(f"refused-{rank}")
        assert "'side'" in text
        assert "main thread" in text


def test_a_wrong_option_is_refused_once_for_all_ranks(jobs: Jobs) -> None:
    text = "import gpumpi\ngpumpi.initialize(nthread=2)\nprint('not reached')"
    result = jobs.run(text, gpumpi=False)
    assert_failed(result, "nthread is not an option", "nthreads", code=2)
    assert "not reached" not in result.stdout


def test_a_pool_of_forked_processes_works_without_a_main_guard(jobs: Jobs) -> None:
    result = jobs.run(
        """
        import multiprocessing
        import gpumpi
        from results import save

        session = gpumpi.initialize()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            save("pool", pool.map(abs, [-1, -2, -3]))
        save("cluster", session.client.submit(sum, [1, 2]).result())
        """,
        gpumpi=False,
    )
    assert_good(result)
    assert jobs.saved("pool") == [1, 2, 3]
    assert jobs.saved("cluster") == 3


def test_spawned_processes_without_a_main_guard_end_with_a_word_on_it(
    jobs: Jobs,
) -> None:
    job = jobs.start(
        """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        import gpumpi

        gpumpi.initialize()
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            print(pool.submit(abs, -1).result())
        """,
        gpumpi=False,
    )
    with job:
        result, _ = end_of(job)
    assert result.code == 1, str(result)
    assert not result.leftovers, str(result)
    assert 'if __name__ == "__main__":' in result.stderr, str(result)
    assert "BrokenProcessPool" in result.stderr, str(result)


def test_spawned_processes_with_a_main_guard_work(jobs: Jobs) -> None:
    result = jobs.run(
        """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        import gpumpi
        from results import save

        if __name__ == "__main__":
            gpumpi.initialize()
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                save("spawned", pool.submit(abs, -1).result())
        """,
        gpumpi=False,
    )
    assert_good(result)
    assert jobs.saved("spawned") == 1
