"""What a process says. Logging belongs to the process, so each test has its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gpumpi.log import Phase, RankLog

if TYPE_CHECKING:
    from pathlib import Path

PRELUDE = """
import logging, sys
from pathlib import Path
from gpumpi.errors import StartError
from gpumpi.log import Phase, log
library = logging.getLogger("distributed.worker")
"""


@pytest.fixture
def say(run_python):
    """Run code that speaks; gives what came on stdout and on stderr."""

    def run(code: str, *words: object, **options) -> tuple[str, str]:
        ended = run_python(PRELUDE + code, *words, **options)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout, ended.stderr

    return run


# ---------------------------------------------------------------- our own words


def test_a_notice_is_on_stdout_as_it_is(say) -> None:
    assert say('log.notice("a | b\\n  c")') == ("a | b\n  c\n", "")


def test_a_problem_is_on_stderr_with_our_name_before_each_line(say) -> None:
    assert say('log.problem("first\\nsecond")') == (
        "",
        "gpumpi: first\ngpumpi: second\n",
    )


def test_quiet_leaves_notices_out_and_never_problems(say) -> None:
    out, errors = say('log.quiet = True\nlog.notice("a")\nlog.problem("b")')
    assert (out, errors) == ("", "gpumpi: b\n")


def test_a_detail_is_on_no_screen(say) -> None:
    assert say('log.detail("a")') == ("", "")
    assert say('log.configure(None, "x")\nlog.detail("a")') == ("", "")


def test_words_in_a_phase_are_ours_whatever_the_phase(say) -> None:
    code = """
for phase in Phase:
    log.phase = phase
    log.notice(phase.value)
    log.problem(phase.value)
"""
    out, errors = say(code)
    assert out == "starting\nrunning\nending\n"
    assert errors == "gpumpi: starting\ngpumpi: running\ngpumpi: ending\n"


SPEAKER = """
import sys
from gpumpi.log import log
lines = "\\n".join(f"{sys.argv[1]} line {n} of the message" for n in range(30))
for _ in range(60):
    log.notice(lines)
    log.problem(lines)
"""


@pytest.mark.parametrize("unbuffered", [[], ["-u"]])
def test_lines_of_many_processes_are_not_torn(tmp_path: Path, unbuffered) -> None:
    path = tmp_path / "out"
    with path.open("ab") as file:
        speakers = [
            subprocess.Popen(
                [sys.executable, *unbuffered, "-c", SPEAKER, f"speaker{number}"],
                stdout=file,
                stderr=file,
            )
            for number in range(3)
        ]
        assert [speaker.wait(60) for speaker in speakers] == [0, 0, 0]
    lines = path.read_text().splitlines()
    assert len(lines) == 3 * 2 * 60 * 30
    # Whole messages, not only whole lines: line n + 1 of a speaker follows its line n.
    for start in range(0, len(lines), 30):
        first = lines[start].removeprefix("gpumpi: ").split()[0]
        prefix = "gpumpi: " if lines[start].startswith("gpumpi: ") else ""
        assert lines[start : start + 30] == [
            f"{prefix}{first} line {number} of the message" for number in range(30)
        ]


@pytest.mark.parametrize("method", ["notice", "problem"])
@pytest.mark.parametrize(
    "broken",
    [
        "sys.{stream}.close()",
        "sys.{stream} = None",
        "r, w = os.pipe(); os.close(r); os.dup2(w, {number})",
        "os.dup2(os.open('/dev/full', os.O_WRONLY), {number})",
    ],
    ids=["closed", "none", "reader gone", "disk full"],
)
def test_an_output_that_is_gone_is_no_failure(run_python, method, broken) -> None:
    stream, number = ("stdout", 1) if method == "notice" else ("stderr", 2)
    code = f"""
        import os, sys
        from gpumpi.log import log
        {broken.format(stream=stream, number=number)}
        log.{method}("x")
        os._exit(7)
    """
    assert run_python(code).returncode == 7


def test_a_notice_with_letters_that_the_terminal_lacks_is_not_lost(say) -> None:
    out, _ = say(
        'log.notice("rank 0 of J\\u00fcrgen")', env={"PYTHONIOENCODING": "ascii"}
    )
    assert out.startswith("rank 0 of J")


def test_a_problem_with_letters_that_the_terminal_lacks_is_not_lost(say) -> None:
    code = 'log.problem("/home/J\\u00fcrgen/x.py")'
    _, errors = say(code, env={"PYTHONIOENCODING": "ascii"})
    assert errors == "gpumpi: /home/J\\xfcrgen/x.py\n"


# ------------------------------------------------------------ the libraries' words


@pytest.mark.parametrize(
    ("phase", "errors"),
    [
        ("STARTING", ""),
        ("RUNNING", "r3 | late\nr3 | bad\n"),
        ("ENDING", ""),
    ],
)
def test_warnings_of_libraries_are_shown_while_the_job_runs(say, phase, errors) -> None:
    code = f"""
log.tag("r3")
log.configure(None, "rank-0003")
log.phase = Phase.{phase}
library.info("chatter")
library.warning("late")
logging.getLogger("tornado.application").error("bad")
"""
    assert say(code) == ("", errors)


def test_the_phase_may_change_as_the_job_goes_on(say) -> None:
    code = """
log.tag("r0")
log.configure(None, "x")
for phase in Phase:
    log.phase = phase
    library.warning(phase.value)
"""
    assert say(code)[1] == "r0 | running\n"


def test_loggers_that_dask_gave_handlers_to_pass_the_filter_too(say) -> None:
    code = """
import distributed
log.tag("r1")
log.configure(None, "x")
log.phase = Phase.ENDING
for name in list(logging.root.manager.loggerDict):
    if name.startswith("distributed."):
        logging.getLogger(name).warning("closed")
log.phase = Phase.RUNNING
logging.getLogger("distributed.client").warning("open")
"""
    assert say(code) == ("", "r1 | open\n")


def test_an_error_of_ours_that_a_library_logs_is_told_by_who_asked(say) -> None:
    code = """
log.configure(None, "x")
log.phase = Phase.RUNNING
for kind in (StartError, ValueError):
    try:
        raise kind("oh")
    except Exception:
        library.exception("in a handler")
"""
    _, errors = say(code)
    assert errors.count("in a handler") == 1
    assert "ValueError: oh" in errors
    assert "StartError" not in errors


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("distributed.scheduler", "Removing worker 'tcp://10.0.0.1:1' caused ..."),
        ("distributed.scheduler", "Worker failed to heartbeat for 60s"),
        ("distributed.nanny", "Restarting worker"),
        ("distributed.shuffle._scheduler_plugin", "Shuffle abc initialized"),
        ("tornado.access", "404 GET /favicon.ico"),
    ],
)
def test_what_is_told_elsewhere_or_is_routine_is_not_shown(say, name, text) -> None:
    code = f"""
log.configure(None, "x")
log.phase = Phase.RUNNING
logging.getLogger({name!r}).warning({text!r})
logging.getLogger({name!r}).error("bad")
"""
    assert say(code) == ("", "gpumpi | bad\n")


def test_other_loggers_are_left_as_they_are(say) -> None:
    code = """
logging.basicConfig(format="%(name)s %(message)s", level=logging.INFO)
log.configure(None, "x")
logging.getLogger("users.own").info("word")
"""
    assert say(code) == ("", "users.own word\n")


def test_our_own_words_do_not_go_through_the_roots_handlers(say) -> None:
    code = """
logging.basicConfig(level=logging.INFO)
log.notice("a")
log.problem("b")
log.detail("c")
"""
    assert say(code) == ("a\n", "gpumpi: b\n")


# -------------------------------------------------------------------- the files


def test_the_file_has_all_with_its_time_and_tag(say, tmp_path) -> None:
    code = """
log.quiet = True
log.tag("r3")
log.configure(Path(sys.argv[1]) / "logs", "rank-0003")
log.notice("a notice")
log.detail("a detail")
log.problem("a problem")
library.info("chatter")
library.warning("a warning")
"""
    assert say(code, tmp_path) == ("", "gpumpi: a problem\n")
    (path,) = (tmp_path / "logs").iterdir()
    assert path.name == "rank-0003.log"
    # The banner in it has the secret path of the dashboard.
    assert path.stat().st_mode & 0o777 == 0o600
    lines = path.read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "r3 INFO gpumpi | a notice",
        "r3 INFO gpumpi | a detail",
        "r3 ERROR gpumpi | a problem",
        "r3 INFO distributed.worker | chatter",
        "r3 WARNING distributed.worker | a warning",
    ]


def test_a_file_that_is_there_is_gone_on_with(say, tmp_path) -> None:
    code = 'log.configure(Path(sys.argv[1]), "x")\nlog.detail("again")'
    say(code, tmp_path)
    say(code, tmp_path)
    assert (tmp_path / "x.log").read_text().count("again") == 2


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        RankLog().configure(tmp_path / "file" / "logs", "x")


def test_a_new_log_speaks_and_starts() -> None:
    log = RankLog()
    assert (log.phase, log.quiet) == (Phase.STARTING, False)
