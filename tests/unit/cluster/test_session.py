"""What a script holds of its job; ``cli/test_initialize.py`` has its other half."""

from __future__ import annotations

import dataclasses

import pytest

from gpumpi.cluster.session import RankInfo, current_session


def test_before_the_first_there_is_no_session() -> None:
    assert current_session() is None


def test_a_rank_is_told_by_four_facts_that_stay() -> None:
    info = RankInfo(rank=1, host="n1", gpu=None, worker="tls://10.0.0.1:1")
    assert dataclasses.astuple(info) == (1, "n1", None, "tls://10.0.0.1:1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.rank = 2  # type: ignore[misc]


def test_another_cluster_in_the_script_is_neither_used_nor_spoilt(run_python) -> None:
    ended = run_python(
        """
        import threading
        import dask
        import gpumpi
        from distributed import Client, LocalCluster
        from gpumpi.cluster.session import current_session
        hook = threading.excepthook
        session = gpumpi.initialize(nthreads=1, quiet=True, dashboard=False)
        assert current_session() is session
        options = dict(n_workers=1, processes=False, dashboard_address=None)
        with LocalCluster(**options) as other, Client(other) as client:
            assert client.scheduler.address.startswith(("tcp://", "inproc://"))
            assert client.submit(sum, [40, 2]).result() == 42
        assert session.client.submit(sum, [1, 2]).result() == 3
        session.close()
        assert session.ended
        # What the session had changed is as it was before.
        assert threading.excepthook is hook
        assert dask.config.get("scheduler-address") is None
        assert dask.config.get("distributed.client.security-loader") is None
        with LocalCluster(**options) as other, Client(other) as client:
            assert client.submit(sum, [40, 2]).result() == 42
        """
    )
    assert ended.returncode == 0, ended.stderr


def test_a_signal_that_came_while_it_closed_is_raised_after(run_python) -> None:
    ended = run_python(
        """
        import os, signal, threading, time
        import gpumpi
        session = gpumpi.initialize(nthreads=1, quiet=True, dashboard=False)
        def interrupt():
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGTERM)
        thread = threading.Thread(target=interrupt)  # close() waits for it
        thread.start()
        try:
            session.close()
        except SystemExit as end:
            print("raised", end.code, session.ended)
            raise
        print("went on")
        """
    )
    assert (ended.returncode, ended.stdout) == (143, "raised 143 True\n"), ended.stderr
