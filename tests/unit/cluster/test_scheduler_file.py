from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpumpi.cluster.scheduler_file import SchedulerFile
from gpumpi.cluster.security import Credentials
from gpumpi.errors import SchedulerFileError

FILE = SchedulerFile(
    address="tls://10.0.0.1:41234",
    job="0123456789ab",
    host="node0",
    pid=4711,
    started=1.7e9,
    ranks=4,
    nanny=False,
    secure=True,
)
CREDENTIALS = Credentials(
    key="-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    certificate="-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n",
)
NOBODY = 12345

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "scheduler.json"


def changed(**changes: object) -> SchedulerFile:
    return SchedulerFile(**(asdict(FILE) | changes))


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


# ------------------------------------------------------------------- writing


def test_what_is_written_is_read(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    assert SchedulerFile.read(path) == FILE
    assert FILE.read_credentials(path) == CREDENTIALS


def test_a_job_without_credentials_has_one_file(path: Path) -> None:
    file = changed(secure=False, address="tcp://10.0.0.1:1")
    file.write(path, None)
    assert names(path) == ["scheduler.json"]
    assert SchedulerFile.read(path).read_credentials(path) is None


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_both_files_are_for_their_user_only_whatever_the_umask(
    path: Path, mask: int
) -> None:
    before = os.umask(mask)
    try:
        FILE.write(path, CREDENTIALS)
    finally:
        os.umask(before)
    beside = SchedulerFile.credentials_path(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600


def test_nothing_temporary_is_left(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    assert names(path) == ["scheduler.json", "scheduler.json.pem"]


def test_a_second_job_takes_the_place_of_the_first(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    path.chmod(0o644)
    newer = changed(job="newer")
    newer.write(path, CREDENTIALS)
    assert SchedulerFile.read(path) == newer
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_reader_never_sees_half_a_file(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    seen: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                seen.append(SchedulerFile.read(path).job)
            except SchedulerFileError as error:
                seen.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(40):
        changed(job="x" * (number % 7 + 1)).write(path, CREDENTIALS)
    done.set()
    reader.join()
    assert len(seen) > 5
    assert [each for each in seen if isinstance(each, Exception)] == []


def test_the_file_is_what_dasks_own_client_reads(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    assert json.loads(path.read_text())["address"] == FILE.address


def test_a_link_in_its_place_is_replaced_and_not_followed(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("precious")
    path.symlink_to(target)
    FILE.write(path, CREDENTIALS)
    assert target.read_text() == "precious"
    assert not path.is_symlink()


def test_a_folder_in_its_place_is_an_error(path: Path) -> None:
    path.mkdir()
    with pytest.raises(SchedulerFileError, match="writing the scheduler file"):
        FILE.write(path, CREDENTIALS)
    assert not [name for name in names(path) if name.startswith(".")]


def test_a_write_that_fails_leaves_no_credentials(path: Path) -> None:
    path.mkdir()
    with pytest.raises(SchedulerFileError):
        FILE.write(path, CREDENTIALS)
    assert names(path) == ["scheduler.json"]


# ------------------------------------------------------------------ the folder


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchedulerFileError) as caught:
        SchedulerFile.check_directory(tmp_path / "absent" / "s.json")
    assert f"{tmp_path}/absent is not a folder" in str(caught.value)
    assert f"mkdir -p {tmp_path}/absent" in str(caught.value)


def test_a_file_for_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SchedulerFileError, match="file is not a folder"):
        SchedulerFile.check_directory(tmp_path / "file" / "s.json")


def test_a_folder_where_nothing_can_be_written_is_refused() -> None:
    with pytest.raises(SchedulerFileError, match="/proc is not writable for this user"):
        SchedulerFile.check_directory(Path("/proc/s.json"))


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o775, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(path: Path, mode: int) -> None:
    path.parent.chmod(mode)
    with pytest.raises(SchedulerFileError) as caught:
        FILE.write(path, CREDENTIALS)
    assert f"(mode {mode:o})" in str(caught.value)
    assert f"chmod go-w {path.parent}" in str(caught.value)
    assert names(path) == []


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777, 0o1770])
def test_a_folder_of_ones_own_or_a_sticky_one_is_taken(path: Path, mode: int) -> None:
    path.parent.chmod(mode)
    SchedulerFile.check_directory(path)
    assert names(path) == []


def test_the_folder_of_a_bare_name_is_the_current_one(path: Path, monkeypatch) -> None:
    monkeypatch.chdir(path.parent)
    SchedulerFile.check_directory(Path("s.json"))
    path.parent.chmod(0o777)
    with pytest.raises(SchedulerFileError):
        SchedulerFile.check_directory(Path("s.json"))


# ------------------------------------------------------------------- reading


def test_an_absent_file_is_refused(path: Path) -> None:
    with pytest.raises(SchedulerFileError) as caught:
        SchedulerFile.read(path)
    assert f"reading the scheduler file {path}: it is not there" in str(caught.value)


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(SchedulerFileError, match="it is empty;"):
        SchedulerFile.read(path)


WHOLE = json.dumps(asdict(FILE), indent=2)


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    for length in range(1, len(WHOLE)):
        path.write_text(WHOLE[:length])
        with pytest.raises(SchedulerFileError) as caught:
            SchedulerFile.read(path)
        assert "it is half-written or not one of gpumpi's" in str(caught.value), length


FOREIGN = {
    "a list": [1],
    "a number": 1,
    "null": None,
    "text": "tcp://10.0.0.1:8786",
    "an empty object": {},
    "Dask's own": {
        "type": "Scheduler",
        "id": "Scheduler-1",
        "address": "tcp://10.0.0.1:8786",
        "services": {},
        "started": 1.7e9,
        "workers": {},
    },
    "one field less": {k: v for k, v in asdict(FILE).items() if k != "job"},
    "one field more": asdict(FILE) | {"more": 1},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_json_is_refused(path: Path, name: str) -> None:
    path.write_text(json.dumps(FOREIGN[name]))
    with pytest.raises(SchedulerFileError, match="not one of gpumpi's"):
        SchedulerFile.read(path)


@pytest.mark.parametrize("field", asdict(FILE))
def test_a_file_with_a_field_of_another_type_is_refused(path: Path, field: str) -> None:
    path.write_text(json.dumps(asdict(FILE) | {field: None}))
    with pytest.raises(SchedulerFileError, match="not one of gpumpi's"):
        SchedulerFile.read(path)


def test_bytes_that_are_no_text_are_refused(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchedulerFileError, match="a readable text file is needed"):
        SchedulerFile.read(path)


def test_a_folder_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(SchedulerFileError, match="a readable text file is needed"):
        SchedulerFile.read(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_no_content_is_too_odd_to_be_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(SchedulerFileError):
        SchedulerFile.read(path)


@needs_root
def test_the_file_of_another_user_is_refused(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(SchedulerFileError) as caught:
        SchedulerFile.read(path)
    assert f"it belongs to user {NOBODY}" in str(caught.value)
    assert f"only files of this user ({os.getuid()}) are trusted" in str(caught.value)


# --------------------------------------------------------------- credentials


def test_absent_credentials_are_refused(path: Path) -> None:
    FILE.write(path, None)
    with pytest.raises(SchedulerFileError) as caught:
        FILE.read_credentials(path)
    assert f"reading the credentials {path}.pem: " in str(caught.value)
    assert "No such file or directory" in str(caught.value)
    assert "copy scheduler.json.pem along with scheduler.json" in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o666])
def test_credentials_that_others_may_touch_are_refused(path: Path, mode: int) -> None:
    FILE.write(path, CREDENTIALS)
    SchedulerFile.credentials_path(path).chmod(mode)
    with pytest.raises(SchedulerFileError) as caught:
        FILE.read_credentials(path)
    assert f"its mode is {mode:o}" in str(caught.value)
    assert f"chmod 600 {path}.pem" in str(caught.value)


def test_credentials_cut_anywhere_are_refused(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    for length in range(len(CREDENTIALS.pem) - 1):
        SchedulerFile.credentials_path(path).write_text(CREDENTIALS.pem[:length])
        with pytest.raises(SchedulerFileError) as caught:
            FILE.read_credentials(path)
        assert "it is half-written" in str(caught.value), length


def test_credentials_that_are_no_text_are_refused(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    SchedulerFile.credentials_path(path).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchedulerFileError, match="reading the credentials"):
        FILE.read_credentials(path)


def test_no_message_shows_the_key(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    SchedulerFile.credentials_path(path).write_text(CREDENTIALS.key)
    with pytest.raises(SchedulerFileError) as caught:
        FILE.read_credentials(path)
    assert "AAAA" not in str(caught.value)


# ------------------------------------------------------------------ removing


def test_removing_takes_both_files(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    FILE.remove(path)
    assert names(path) == []


def test_removing_twice_is_fine(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    FILE.remove(path)
    FILE.remove(path)


def test_credentials_whose_file_has_gone_are_removed(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    path.unlink()
    FILE.remove(path)
    assert names(path) == []


def test_the_files_of_a_newer_job_are_left_alone(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    newer = changed(job="newer")
    newer.write(path, CREDENTIALS)
    FILE.remove(path)
    assert SchedulerFile.read(path) == newer
    assert newer.read_credentials(path) == CREDENTIALS


def test_the_file_that_another_program_has_put_there_is_left_alone(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    path.write_text(json.dumps(FOREIGN["Dask's own"]))
    FILE.remove(path)
    assert json.loads(path.read_text()) == FOREIGN["Dask's own"]


@needs_root
def test_the_file_that_another_user_has_put_there_is_left_alone(path: Path) -> None:
    FILE.write(path, CREDENTIALS)
    os.chown(path, NOBODY, NOBODY)
    FILE.remove(path)
    assert path.exists()
