from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner

import gpumpi
from gpumpi.cli.connect import command, connect
from gpumpi.errors import SchedulerFileError


@pytest.fixture
def path(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path / "scheduler.json"


@pytest.fixture(scope="module", autouse=True)
def silence(cluster, tmp_path_factory):
    """Connect, meanwhile, to a port that takes connections and never speaks."""
    folder = tmp_path_factory.mktemp("silent", numbered=True)
    folder.chmod(0o700)
    found: list[object] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        cluster.write_file(folder / "s.json", address=address, secure=False)

        def run() -> None:
            begin = time.monotonic()
            try:
                connect(folder / "s.json")
            except SchedulerFileError as error:
                found.extend([str(error), time.monotonic() - begin])

        thread = threading.Thread(target=run)
        thread.start()
        yield thread, address, found
        thread.join()


# ------------------------------------------------------------------- the function


def test_a_client_comes_from_the_file(cluster, path) -> None:
    cluster.write_file(path)
    with connect(path) as client:
        assert client.scheduler_info()["address"] == cluster.address
    assert client.status == "closed"


def test_a_path_may_be_text_with_a_tilde(cluster, path, monkeypatch) -> None:
    cluster.write_file(path)
    monkeypatch.setenv("HOME", str(path.parent))
    with gpumpi.connect("~/scheduler.json") as client:
        assert client.status == "running"


def test_options_go_to_the_client(cluster, path) -> None:
    cluster.write_file(path)
    with connect(path, name="mine", set_as_default=False) as client:
        assert "mine" in client.id


def test_an_asynchronous_client_can_be_made(cluster, path) -> None:
    cluster.write_file(path)

    async def main() -> str:
        async with connect(path, asynchronous=True) as client:
            return client.status

    assert asyncio.run(main()) == "running"


def test_a_notebook_can_connect_although_a_loop_runs_there(cluster, path) -> None:
    # IPython's kernel runs every cell inside its event loop.
    cluster.write_file(path)

    async def cell() -> str:
        with connect(path) as client:
            return client.scheduler_info()["address"]

    assert asyncio.run(cell()) == cluster.address


def test_a_file_that_is_absent_is_told_at_once(path) -> None:
    begin = time.monotonic()
    with pytest.raises(SchedulerFileError, match="it is not there"):
        connect(path)
    assert time.monotonic() - begin < 1


def test_credentials_that_are_missing_are_told(cluster, path) -> None:
    cluster.write_file(path)
    os.unlink(f"{path}.pem")
    with pytest.raises(SchedulerFileError, match="reading the credentials"):
        connect(path)


# -------------------------------------------------------------------- the command


def invoke(*words: object):
    return CliRunner().invoke(command, [str(word) for word in words])


def test_the_command_shows_who_answers(cluster, path) -> None:
    cluster.write_file(path)
    result = invoke(path)
    assert result.exit_code == 0
    assert result.output == (
        f"{cluster.address}: 0 workers, 0 threads, job abc on node0\n"
    )


def test_the_shell_lines_hold_paths_and_no_secret(cluster, path) -> None:
    cluster.write_file(path)
    lines = invoke("--env", path).output.splitlines()
    assert [line.partition("=")[0] for line in lines] == [
        "export DASK_SCHEDULER_ADDRESS",
        "export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION",
        "export DASK_DISTRIBUTED__COMM__TLS__CA_FILE",
        "export DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY",
        "export DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT",
    ]
    assert lines[0].endswith(f"={cluster.address}")
    assert lines[2].endswith(f"={path}.pem")
    assert "PRIVATE" not in "\n".join(lines)


def test_a_path_is_quoted_for_the_shell(cluster, tmp_path) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir(mode=0o700)
    cluster.write_file(folder / "s.json")
    lines = invoke("--env", folder / "s.json").output
    ended = subprocess.run(
        ["sh", "-c", f'{lines}\necho "$DASK_DISTRIBUTED__COMM__TLS__CA_FILE"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == f"{folder}/s.json.pem\n"


def test_a_job_without_security_has_an_address_only(cluster, path) -> None:
    cluster.write_file(path, secure=False, address="tcp://127.0.0.1:1")
    assert invoke("--env", path).output == (
        "export DASK_SCHEDULER_ADDRESS=tcp://127.0.0.1:1\n"
    )


def test_after_these_lines_a_plain_client_finds_the_cluster(cluster, path) -> None:
    cluster.write_file(path)
    script = (
        f'eval "$({sys.executable} -m gpumpi connect --env scheduler.json)" && cd / && '
        f'{sys.executable} -c "from distributed import Client; '
        "print(Client(timeout=20).scheduler_info()['address'])\""
    )
    ended = subprocess.run(
        ["sh", "-c", script],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, f"{cluster.address}\n"), ended.stderr


@pytest.mark.parametrize("words", [[], ["--env"]])
def test_a_file_that_is_absent_is_one_line_and_1(run_module, path, words) -> None:
    ended = run_module("gpumpi", "connect", *words, path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"gpumpi: reading the scheduler file {path}: it is not there; a running "
        "cluster writes it. Next: start the cluster with --scheduler-file, then try "
        "again\n"
    )


def test_a_port_that_never_answers_is_told_within_five_seconds(silence) -> None:
    thread, address, found = silence
    thread.join(20)
    text, seconds = found
    assert f"nobody answers at {address} (TimeoutError)" in text
    assert seconds < 6
