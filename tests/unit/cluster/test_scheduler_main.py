"""The scheduler's process by its own protocol: lines of JSON in and out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest

WORKER = """
    import asyncio, sys
    from distributed import Worker
    async def main():
        async with Worker(sys.argv[1], name=int(sys.argv[2]), host="127.0.0.1") as w:
            print(w.address, flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    asyncio.run(main())
"""


class Talk:
    """A scheduler's process and what was said to and by it."""

    def __init__(self, finish: Any) -> None:
        self.finish = finish
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpumpi.cluster.scheduler_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def say(self, **message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Close stdin; what comes until the end."""
        code, out, errors = self.finish(self.process)
        return code, [json.loads(line) for line in out.splitlines()], errors


@pytest.fixture(scope="module", autouse=True)
def frozen(finish, orders):
    """A worker that is frozen while the other tests run, and what is said of it.

    Dask waits for ten heartbeats at least, 5 s, whatever the time to live.
    """
    talk = Talk(finish)
    talk.say(**orders(worker_ttl=0.5))
    address = talk.hear()["address"]
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), address, "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    talk.hear()
    worker.send_signal(signal.SIGSTOP)
    yield talk
    for process in (worker, talk.process):
        process.kill()
        process.wait()


@pytest.fixture
def talk(finish):
    talk = Talk(finish)
    yield talk
    talk.process.kill()
    talk.process.wait()


def test_it_ends_when_stdin_closes_and_says_that_rank_0_is_gone(talk, orders) -> None:
    talk.say(**orders())
    talk.hear()
    code, events, errors = talk.end()
    assert (code, events) == (0, [])
    assert errors == (
        "gpumpi: rank 0 on host node0 was lost: it was killed, crashed, or left by "
        "os._exit\n"
    )


def test_it_ends_in_silence_when_stdin_closes_before_its_orders(talk) -> None:
    assert talk.end() == (0, [], "")


def test_half_an_order_is_none(talk) -> None:
    talk.process.stdin.write('{"config": {}')
    assert talk.end() == (0, [], "")


def test_what_the_job_is_sent_does_not_end_it_but_a_word_of_rank_0_does(
    talk, orders
) -> None:
    talk.say(**orders())
    event = talk.hear()
    assert event["event"] == "listening"
    assert event["address"].startswith("tcp://127.0.0.1:")
    assert event["dashboard_port"] is None
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
    ):
        os.kill(talk.process.pid, number)
    talk.say(end=True)
    assert talk.end() == (0, [], "")


def test_a_start_that_fails_is_one_line_with_the_cause(talk, orders) -> None:
    talk.say(**orders(host="192.0.2.1"))
    code, events, errors = talk.end()
    assert code == 0
    assert [event["event"] for event in events] == ["failed"]
    assert "assign requested address" in events[0]["error"]
    assert errors == ""


def test_a_worker_that_is_killed_is_named_as_the_first_that_was_lost(
    talk, orders, start_python
) -> None:
    talk.say(**orders())
    address = talk.hear()["address"]
    killed = start_python(WORKER, address, 1, stdin=subprocess.PIPE)
    came = talk.hear()
    killed.kill()
    left = talk.hear()
    assert came == {"event": "worker", "name": 1, "address": came["address"]}
    assert left == {
        "event": "left",
        "name": 1,
        "address": came["address"],
        "lost": True,
        "silent": False,
    }
    # Rank 0 goes next, as the launcher ends all; the first loss is the one to tell.
    code, events, errors = talk.end()
    assert (code, events) == (0, [])
    assert errors == (
        "gpumpi: rank 1 on host node1 was lost: it was killed, crashed, or ended "
        "without its MPI\n"
    )


def test_after_a_signal_nobody_is_said_to_be_lost(talk, orders, start_python) -> None:
    talk.say(**orders())
    address = talk.hear()["address"]
    asked = start_python(WORKER, address, 1, stdin=subprocess.PIPE)
    talk.hear()
    talk.say(quiet=True)
    time.sleep(0.1)  # two pipes: the word must not come after the loss
    asked.kill()
    left = talk.hear()
    assert (left["event"], left["lost"]) == ("left", True)
    assert talk.end() == (0, [], "")


def test_a_signal_before_the_orders_does_not_take_their_place(talk, orders) -> None:
    talk.say(quiet=True)
    talk.say(**orders())
    assert talk.hear()["event"] == "listening"
    talk.say(end=True)
    assert talk.end() == (0, [], "")


def test_a_worker_that_leaves_is_not_lost(talk, orders, start_python) -> None:
    talk.say(**orders())
    address = talk.hear()["address"]
    leaving = start_python(WORKER, address, 1, stdin=subprocess.PIPE)
    came = talk.hear()
    leaving.stdin.write("\n")
    leaving.stdin.flush()
    left = talk.hear()
    assert (left["event"], left["address"]) == ("left", came["address"])
    assert (left["lost"], left["silent"]) == (False, False)
    talk.say(end=True)
    assert talk.end() == (0, [], "")


def test_what_a_library_prints_does_not_come_between_the_lines(
    talk, orders, tmp_path
) -> None:
    (tmp_path / "sitecustomize.py").touch()
    preload = tmp_path / "chatty.py"
    preload.write_text("print('I was imported')\n")
    config = {"distributed.scheduler.preload": [str(preload)]}
    talk.say(**orders(config=config))
    assert talk.hear()["event"] == "listening"
    talk.say(end=True)
    code, events, errors = talk.end()
    assert (code, events) == (0, [])
    assert "I was imported" in errors


def test_its_log_goes_to_a_file_of_its_own(talk, orders, tmp_path) -> None:
    talk.say(**orders(log_dir=str(tmp_path / "logs")))
    talk.hear()
    talk.say(end=True)
    assert talk.end() == (0, [], "")
    text = (tmp_path / "logs" / "scheduler.log").read_text()
    assert "Scheduler at:" in text
    assert all(" scheduler " in line for line in text.splitlines() if " | " in line)


def test_a_frozen_worker_is_lost_after_the_time_to_live(frozen) -> None:
    left = frozen.hear()
    assert (left["event"], left["lost"], left["silent"]) == ("left", True, True)
    frozen.say(end=True)
    code, _, errors = frozen.end()
    assert code == 0
    assert "was lost: it was killed" not in errors
