"""The user's script or module: checked before the start, run as ``__main__``."""

from __future__ import annotations

import builtins
import importlib.util
import runpy
import sys
import traceback
import types
from dataclasses import dataclass
from importlib.abc import InspectLoader
from pathlib import Path
from typing import TYPE_CHECKING

from gpumpi.errors import OptionError, StartError, describe

if TYPE_CHECKING:
    from types import CodeType, TracebackType

__all__ = ["Script"]


@dataclass
class Script:
    """What rank 0 runs.

    Parameters
    ----------
    target : str
        Path of a script, or name of a module.
    arguments : tuple of str
        What the script finds in ``sys.argv[1:]``.
    is_module : bool
        Whether the target is a module, as in ``python -m``.
    """

    target: str
    arguments: tuple[str, ...]
    is_module: bool
    _code: CodeType | None = None

    @property
    def folder(self) -> str:
        """What Python puts first on its import path for this target."""
        if self.is_module:
            return str(Path.cwd())
        return str(Path(self.target).resolve().parent)

    def check(self) -> None:
        """Find and compile it, before anything is started for it.

        Raises
        ------
        OptionError
            When there is no such script or module.
        StartError
            When it is not valid Python; the message shows the place.
        """
        if self.is_module:
            self._check_module()
            return
        path = Path(self.target)
        doing = f"reading the script {self.target}"
        if path.is_dir():
            raise OptionError(
                describe(
                    doing,
                    "it is a folder",
                    "a file of Python code is needed",
                    "name the file, or use -m for a package",
                )
            )
        try:
            source = path.read_bytes()
        except OSError as error:
            raise OptionError(
                describe(
                    doing,
                    f"{error.strerror}",
                    f"a file of Python code is needed, seen from {Path.cwd()}",
                    "check the path; options of gpumpi come before it",
                )
            ) from error
        try:
            # As Python does, so that both stay valid when the script changes folder.
            self._code = compile(
                source, str(path.absolute()), "exec", dont_inherit=True
            )
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise _no_python(f"the script {self.target}", error) from error

    def _check_module(self) -> None:
        sys.path.insert(0, self.folder)
        why = ""
        try:
            name, found = self.target, importlib.util.find_spec(self.target)
            if found is not None and found.submodule_search_locations is not None:
                name = f"{self.target}.__main__"
                found = importlib.util.find_spec(name)
                why = ": it is a package without __main__"
            if found is not None and isinstance(found.loader, InspectLoader):
                found.loader.get_code(name)
        except SyntaxError as error:
            raise _no_python(f"the module {self.target}", error) from error
        except (ImportError, ValueError) as error:
            found, why = None, f": {error}"
        finally:
            sys.path.remove(self.folder)
        if found is None:
            raise OptionError(
                describe(
                    f"looking for the module {self.target}",
                    f"it cannot be found{why}",
                    f"modules of this Python and of {self.folder} are seen",
                    "check its name, or install it",
                )
            )

    def run(self) -> int:
        """Run it in the main thread, and give the exit code that Python would give.

        Its traceback, if it raises, is printed once, without our own frames.
        """
        sys.argv[:] = [self.target, *self.arguments]
        if self.folder not in sys.path[:1]:
            sys.path.insert(0, self.folder)
        try:
            if self.is_module:
                self._make_main()
                # What python -m does; run_module() would take __main__ away again.
                runpy._run_module_as_main(self.target)  # type: ignore[attr-defined]
            else:
                self._run_file()
        except SystemExit as end:
            return _exit_code(end)
        except BaseException as error:  # noqa: BLE001 - this is where Python ends too
            trace = _without_ours(error.__traceback__)
            sys.excepthook(type(error), error.with_traceback(trace), trace)
            return 130 if isinstance(error, KeyboardInterrupt) else 1
        return 0

    def _make_main(self) -> types.ModuleType:
        """Make a ``__main__`` that stays until the process ends.

        Pickles, atexit functions and multiprocessing look it up by this name.
        """
        module = types.ModuleType("__main__")
        module.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = module
        return module

    def _run_file(self) -> None:
        assert self._code is not None
        module = self._make_main()
        module.__file__ = str(Path(self.target).absolute())
        module.__dict__["__cached__"] = None
        exec(self._code, module.__dict__)


def _no_python(what: str, error: BaseException) -> StartError:
    shown = "".join(traceback.format_exception_only(error)).rstrip()
    return StartError(
        f"compiling {what}: it is not valid Python; nothing was started. Next: mend "
        f"this place\n{shown}"
    )


def _exit_code(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    sys.stderr.write(f"{end.code}\n")
    return 1


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """Drop the frames of this file and of runpy from the top of a traceback."""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name not in (__file__, "<frozen runpy>", runpy.__file__):
            return trace
        trace = trace.tb_next
    return None
