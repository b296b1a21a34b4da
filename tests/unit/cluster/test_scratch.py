from __future__ import annotations

import os
from pathlib import Path

import dask
import pytest

from gpumpi.cluster.scratch import Scratch
from gpumpi.errors import StartError
from gpumpi.rank.guard import Guard
from gpumpi.rank.launcher import Launcher, LauncherName


@pytest.fixture
def guard():
    guard = Guard(Launcher(name=LauncherName.NONE))
    yield guard
    guard.dismiss()


def test_a_folder_of_the_ranks_own_is_made(guard, tmp_path) -> None:
    scratch = Scratch(tmp_path, "abc", 3, guard)
    scratch.check()
    path = Path(scratch.path)
    assert path.parent == tmp_path
    assert path.name.startswith("gpumpi-abc-r3-")
    assert path.stat().st_mode & 0o777 == 0o700


def test_two_ranks_never_share_one(guard, tmp_path) -> None:
    first, second = (Scratch(tmp_path, "abc", 0, guard) for _ in range(2))
    assert first.path != second.path


def test_a_base_that_is_absent_is_made(guard, tmp_path) -> None:
    scratch = Scratch(tmp_path / "a" / "b", "abc", 0, guard)
    assert Path(scratch.path).parent == tmp_path / "a" / "b"


def test_without_a_base_it_is_dasks_folder_and_then_the_systems(
    guard, tmp_path, monkeypatch
) -> None:
    with dask.config.set({"temporary-directory": str(tmp_path / "dask")}):
        found = Scratch(None, "abc", 0, guard)
        assert Path(found.path).parent == tmp_path / "dask"
        given = Scratch(tmp_path / "given", "abc", 0, guard)
        assert Path(given.path).parent == tmp_path / "given"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with dask.config.set({"temporary-directory": None}):
        assert Path(Scratch(None, "abc", 0, guard).path).parent == tmp_path


def test_it_is_the_same_folder_when_the_script_changes_its_own(
    guard, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scratch = Scratch(Path("relative"), "abc", 0, guard)
    assert Path(scratch.path).is_absolute()
    monkeypatch.chdir("/")
    scratch.remove()
    assert list((tmp_path / "relative").iterdir()) == []


def test_it_goes_with_all_that_is_in_it(guard, tmp_path) -> None:
    scratch = Scratch(tmp_path, "abc", 0, guard)
    (Path(scratch.path) / "storage").mkdir()
    (Path(scratch.path) / "storage" / "spilled").write_bytes(b"x")
    scratch.remove()
    assert list(tmp_path.iterdir()) == []
    scratch.remove()


def test_what_went_wrong_is_held_back_until_it_can_be_told(guard, tmp_path) -> None:
    (tmp_path / "file").touch()
    scratch = Scratch(tmp_path / "file" / "below", "abc", 0, guard)
    assert scratch.path == ""
    with pytest.raises(StartError) as caught:
        scratch.check()
    assert "making the scratch folder" in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)
    assert "Next: choose one with --local-directory" in str(caught.value)
    scratch.remove()
    assert os.listdir(tmp_path) == ["file"]


def test_it_goes_when_its_rank_is_killed(start_python, tmp_path, eventually) -> None:
    owner = start_python(
        """
        import sys, time
        from pathlib import Path
        from gpumpi.cluster.scratch import Scratch
        from gpumpi.rank.guard import Guard
        from gpumpi.rank.launcher import Launcher, LauncherName
        guard = Guard(Launcher(name=LauncherName.NONE))
        scratch = Scratch(Path(sys.argv[1]), "abc", 0, guard)
        print(scratch.path, flush=True)
        time.sleep(60)
        """,
        tmp_path,
    )
    path = Path(owner.stdout.readline().strip())
    assert path.is_dir()
    owner.kill()
    eventually(lambda: not path.exists(), "the scratch folder is gone")
