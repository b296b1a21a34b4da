"""The part of the door to MPI that needs none; the ranks tier has the rest."""

from __future__ import annotations

import time

import pytest

from gpumpi.errors import DeadlineError
from gpumpi.rank.launcher import Launcher, LauncherName
from gpumpi.rank.mpi import LoneWorld, Tag, World, join_world


def test_without_a_launcher_mpi_is_not_even_imported(run_python) -> None:
    ended = run_python(
        """
        import sys
        from gpumpi.rank.launcher import read_launcher
        from gpumpi.rank.mpi import LoneWorld, join_world
        world = join_world(read_launcher())
        assert type(world) is LoneWorld
        world.finalize()
        assert "mpi4py" not in sys.modules
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.fixture
def world() -> World:
    return join_world(Launcher(name=LauncherName.NONE))


def test_a_lone_rank_is_the_first_of_one(world) -> None:
    assert (world.rank, world.size, world.library) == (0, 1, "no MPI")
    assert world.local_position() == (0, 1)


def test_a_lone_rank_collects_its_own_message_at_once(world) -> None:
    message = object()
    late: list[object] = []

    def missing(*words: object) -> None:
        late.append(words)

    found = world.collect(message, Tag.FACTS, time.monotonic() - 1, missing=missing)
    assert found == {0: message}
    assert late == []


def test_a_lone_rank_has_nobody_to_tell_or_to_hear(world) -> None:
    world.tell("stop", Tag.STOP, time.monotonic())
    assert world.heard(Tag.STOP) is None


def test_listening_ends_at_the_deadline_and_names_what_was_due(world) -> None:
    begin = time.monotonic()
    with pytest.raises(DeadlineError) as caught:
        world.listen(Tag.GO, begin + 0.2, "the second verdict")
    assert 0.2 <= time.monotonic() - begin < 2
    text = str(caught.value)
    assert text.startswith("rank 0 waiting for the second verdict: no word from rank 0")
    assert "Next: look at what rank 0 said, or raise --start-timeout" in text


def test_listening_sleeps_instead_of_spinning(world) -> None:
    before = time.process_time()
    with pytest.raises(DeadlineError):
        world.listen(Tag.GO, time.monotonic() + 0.5, "a word")
    assert time.process_time() - before < 0.25


def test_listening_gives_the_message_that_comes() -> None:
    class Later(LoneWorld):
        asked = 0

        def heard(self, tag: Tag) -> object:
            self.asked += 1
            return (tag, "word") if self.asked > 3 else None

    found = Later().listen(Tag.GO, time.monotonic() + 10, "a word")
    assert found == (Tag.GO, "word")


def test_a_lone_rank_aborts_as_itself(run_python) -> None:
    ended = run_python(
        """
        import atexit
        from gpumpi.rank.mpi import LoneWorld
        atexit.register(print, "atexit")
        LoneWorld().abort(42)
        """
    )
    assert (ended.returncode, ended.stdout) == (42, "")


def test_no_two_kinds_of_messages_have_one_tag() -> None:
    assert len({int(tag) for tag in Tag}) == len(Tag)
