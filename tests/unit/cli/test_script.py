"""Scripts run as Python runs them: most tests ask Python itself what that is."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gpumpi.cli.script import Script
from gpumpi.errors import OptionError, StartError

if TYPE_CHECKING:
    from pathlib import Path

DOOR = """
import sys
from gpumpi.cli.script import Script
script = Script(sys.argv[2], tuple(sys.argv[3:]), sys.argv[1] == "module")
script.check()
sys.exit(script.run())
"""


def write_in(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run_in(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ours_in(folder: Path, *words: object, module: bool = False):
    """Run a script or a module as gpumpi does."""
    return run_in(folder, "-c", DOOR, "module" if module else "script", *words)


def pythons_in(folder: Path, *words: object, module: bool = False):
    """Run it as Python does."""
    return run_in(folder, *(["-m"] if module else []), *words)


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "script.py") -> Path:
        return write_in(tmp_path, text, name)

    return write_file


@pytest.fixture
def ours(tmp_path):
    return functools.partial(ours_in, tmp_path)


@pytest.fixture
def pythons(tmp_path):
    return functools.partial(pythons_in, tmp_path)


# ---------------------------------------------------------------- its surroundings

FACTS = '''
"""A doc."""
import json, os, sys
number: int = 3
main = sys.modules["__main__"]
print(json.dumps({
    "argv": sys.argv,
    "name": __name__,
    "file": __file__,
    "first on the path": os.path.abspath(sys.path[0]),
    "doc": __doc__,
    "package": __package__,
    "spec": None if __spec__ is None else __spec__.name,
    "builtins": type(__builtins__).__name__,
    "annotations": list(__annotations__),
    "is main": main.__dict__ is globals(),
    "code": sys._getframe().f_code.co_filename,
}))
'''
KEYS = [
    "argv",
    "name",
    "file",
    "first on the path",
    "doc",
    "package",
    "spec",
    "builtins",
    "annotations",
    "is main",
    "code",
]


@pytest.fixture(params=["relative", "below", "absolute", "link"], scope="module")
def script_facts(request, tmp_path_factory):
    """What a script sees under us and under Python."""
    folder = tmp_path_factory.mktemp("script")
    real = write_in(folder, FACTS, "folder/facts.py")
    write_in(folder, FACTS, "facts.py")
    (folder / "link.py").symlink_to(real)
    target = {
        "relative": "facts.py",
        "below": "folder/facts.py",
        "absolute": str(real),
        "link": "link.py",
    }[request.param]
    words = (target, "--its-own", "option", "-m")
    return [json.loads(run(folder, *words).stdout) for run in (ours_in, pythons_in)]


@pytest.mark.parametrize("key", KEYS)
def test_a_script_sees_what_it_sees_under_python(script_facts, key) -> None:
    found, expected = script_facts
    assert found[key] == expected[key]


@pytest.fixture(params=["facts", "package.facts", "package"], scope="module")
def module_facts(request, tmp_path_factory):
    """What a module sees under us and under Python."""
    folder = tmp_path_factory.mktemp("module")
    for name in ("facts.py", "package/facts.py", "package/__main__.py"):
        write_in(folder, FACTS, name)
    write_in(folder, "", "package/__init__.py")
    words = (request.param, "--its-own", "option")
    return [
        json.loads(run(folder, *words, module=True).stdout)
        for run in (ours_in, pythons_in)
    ]


@pytest.mark.parametrize("key", KEYS)
def test_a_module_sees_what_it_sees_under_python(module_facts, key) -> None:
    found, expected = module_facts
    assert found[key] == expected[key]


def test_a_script_imports_what_lies_beside_it(write, ours) -> None:
    write("value = 42", "folder/beside.py")
    write("import beside; print(beside.value)", "folder/script.py")
    assert ours("folder/script.py").stdout == "42\n"


@pytest.mark.parametrize("module", [False, True], ids=["script", "module"])
def test_what_it_defines_can_be_pickled_and_found_at_exit(write, ours, module) -> None:
    write(
        """
import atexit, pickle
class Thing:
    pass
def last():
    print(type(pickle.loads(pickle.dumps(Thing()))) is Thing, __name__)
atexit.register(last)
""",
        "thing.py",
    )
    target = "thing" if module else "thing.py"
    assert ours(target, module=module).stdout == "True __main__\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_may_start_processes_of_its_own(write, ours, method) -> None:
    path = write(
        f"""
import multiprocessing
def double(x):
    return 2 * x
if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(1) as pool:
        print(pool.map(double, [1, 2]))
"""
    )
    ended = ours(path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[2, 4]\n", "")


def test_our_future_statements_are_not_the_scripts(write, ours) -> None:
    assert ours(write("def f(x: 1 + 1): ...\nprint(f.__annotations__)")).stdout == (
        "{'x': 2}\n"
    )


def test_the_encoding_that_it_declares_is_used(tmp_path, ours) -> None:
    path = tmp_path / "latin.py"
    path.write_bytes(
        "# -*- coding: latin-1 -*-\nprint(len('\u00e4'))".encode("latin-1")
    )
    assert ours(path).stdout == "1\n"


# ------------------------------------------------------------------------ its ends

ENDS = [
    "pass",
    "import sys; sys.exit()",
    "import sys; sys.exit(0)",
    "import sys; sys.exit(3)",
    "import sys; sys.exit(256)",
    "import sys; sys.exit(-1)",
    "import sys; sys.exit(True)",
    "import sys; sys.exit(None)",
    "import sys; sys.exit('what went wrong')",
    "import sys; sys.exit(('a', 1))",
    "raise SystemExit",
    "raise SystemExit(4)",
    "raise ValueError('odd')",
    "def f():\n    g()\ndef g():\n    1 / 0\nf()",
    "try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('b') from e",
    "try:\n    {}['a']\nexcept KeyError:\n    raise ValueError('b')",
    "raise ExceptionGroup('two', [ValueError(1), TypeError(2)])",
    "class Odd(BaseException): pass\nraise Odd('x')",
    "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__)\n1 / 0",
    "import runpy\nrunpy.run_path('absent.py')",
    "import atexit\natexit.register(print, 'bye')\nraise SystemExit(5)",
]


@pytest.mark.parametrize("code", ENDS)
def test_a_script_ends_as_under_python(write, ours, pythons, code) -> None:
    path = write(code)
    found, expected = ours(path), pythons(path)
    assert found.returncode == expected.returncode
    assert found.stdout == expected.stdout
    assert found.stderr == expected.stderr


@pytest.mark.parametrize(
    "code", ["raise ValueError('odd')", "raise SystemExit('text')"]
)
def test_a_module_ends_as_under_python(write, ours, pythons, code) -> None:
    write(code, "module.py")
    found = ours("module", module=True)
    expected = pythons("module", module=True)
    assert found.returncode == expected.returncode == 1
    # Python itself shows its own frames of runpy; ours are left out with them.
    assert found.stderr.splitlines()[-1] == expected.stderr.splitlines()[-1]
    assert "runpy" not in found.stderr
    assert "gpumpi" not in found.stderr


def test_a_traceback_keeps_the_frames_of_a_script_whose_folder_is_called_runpy(
    write, ours, pythons
) -> None:
    path = write("def f():\n    1 / 0\nf()", "runpy_demo/script.py")
    assert ours(path).stderr == pythons(path).stderr


def test_an_interrupted_script_ends_with_130(write, ours) -> None:
    ended = ours(write("raise KeyboardInterrupt"))
    assert ended.returncode == 130
    assert ended.stderr.splitlines()[-1] == "KeyboardInterrupt"


def test_an_interrupt_of_the_job_is_no_traceback(write, ours) -> None:
    path = write("from gpumpi.rank.signals import Interrupted\nraise Interrupted(130)")
    ended = ours(path)
    assert (ended.returncode, ended.stderr) == (130, "")


# ------------------------------------------------------------ checked before the start


def refused(target: object, *, module: bool = False) -> str:
    with pytest.raises((OptionError, StartError)) as caught:
        Script(str(target), (), module).check()
    return f"{type(caught.value).__name__} {caught.value}"


@pytest.fixture(autouse=True)
def in_tmp_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_a_script_that_is_fine_is_compiled_and_not_run(write, capsys) -> None:
    before = list(sys.path), sys.modules["__main__"], list(sys.argv)
    Script(str(write("print('ran')")), ("a",), False).check()
    assert capsys.readouterr().out == ""
    assert (list(sys.path), sys.modules["__main__"], list(sys.argv)) == before


def test_a_script_that_is_missing_is_refused(tmp_path) -> None:
    text = refused("absent.py")
    assert text.startswith("OptionError reading the script absent.py: No such file")
    assert f"seen from {tmp_path}" in text
    assert "Next: check the path; options of gpumpi come before it" in text


def test_a_folder_is_refused(tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    text = refused("folder")
    assert text.startswith("OptionError reading the script folder: it is a folder")


def test_a_script_that_is_no_python_is_refused_with_the_place(write) -> None:
    path = write("x = 1\nif x\n    pass\n")
    text = refused(path)
    assert text.startswith(
        f"StartError compiling the script {path}: it is not valid Python; nothing was "
        "started. Next: mend this place\n"
    )
    assert f'File "{path}", line 2' in text
    assert text.splitlines()[-1].startswith("SyntaxError: ")


@pytest.mark.parametrize("content", [b"x = 1\0", b"# coding: nonsense\n", b"\xff\xfe"])
def test_bytes_that_are_no_python_are_refused(tmp_path, content) -> None:
    (tmp_path / "script.py").write_bytes(content)
    assert refused("script.py").startswith("StartError compiling the script script.py")


@pytest.mark.parametrize("name", ["no_such_module", "no_such.module", "json.absent"])
def test_a_module_that_is_missing_is_refused(name, tmp_path) -> None:
    before = list(sys.path)
    text = refused(name, module=True)
    assert text.startswith(f"OptionError looking for the module {name}: it cannot be")
    assert f"modules of this Python and of {tmp_path} are seen" in text
    assert sys.path == before


@pytest.mark.parametrize("name", [".relative", "", "a..b"])
def test_a_name_that_no_module_can_have_is_refused(name) -> None:
    assert refused(name, module=True).startswith("OptionError looking for the module")


def test_a_module_of_the_current_folder_is_found(write) -> None:
    write("1 / 0", "gpumpi_unit_module.py")
    before = list(sys.path)
    Script("gpumpi_unit_module", (), True).check()
    assert sys.path == before
    assert "gpumpi_unit_module" not in sys.modules


def test_a_package_that_cannot_be_run_is_refused(write) -> None:
    write("", "gpumpi_unit_package/__init__.py")
    text = refused("gpumpi_unit_package", module=True)
    assert text.startswith("OptionError looking for the module gpumpi_unit_package")


def test_a_module_that_is_no_python_is_refused_with_the_place(write) -> None:
    path = write("if x\n", "gpumpi_unit_broken.py")
    text = refused("gpumpi_unit_broken", module=True)
    assert text.startswith("StartError ")
    assert f'File "{path}", line 1' in text


def test_the_folder_is_what_python_puts_first_on_the_path(tmp_path) -> None:
    assert Script("a/b.py", (), False).folder == str(tmp_path / "a")
    assert Script("/x/b.py", (), False).folder == "/x"
    assert Script("b.py", (), False).folder == str(tmp_path)
    assert Script("a.b", (), True).folder == str(tmp_path)
