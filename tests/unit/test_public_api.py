from __future__ import annotations

import pytest

import gpumpi
from gpumpi._version import __version__

HEAVY = [
    "mpi4py",
    "dask",
    "distributed",
    "numpy",
    "pandas",
    "tornado",
    "click",
    "bokeh",
]
GPUS = ["cupy", "cudf", "rmm", "numba", "pynvml", "dask_cuda", "ucxx"]


def test_importing_starts_nothing_heavy_and_is_fast(run_python) -> None:
    ended = run_python(
        f"""
        import sys, time
        begin = time.monotonic()
        import gpumpi
        assert time.monotonic() - begin < 1
        loaded = set({HEAVY + GPUS}) & set(sys.modules)
        assert not loaded, loaded
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_looking_at_the_names_starts_nothing_heavy_either(run_python) -> None:
    code = f"""
        import sys, gpumpi
        dir(gpumpi), gpumpi.__all__, gpumpi.__version__, gpumpi.OptionError
        assert not set({HEAVY}) & set(sys.modules)
    """
    ended = run_python(code)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("name", ["initialize", "connect", "on_preempt", "Session"])
def test_using_a_name_starts_no_mpi(run_python, name) -> None:
    code = f"""
        import sys, gpumpi
        assert gpumpi.{name} is gpumpi.{name}
        assert "mpi4py" not in sys.modules
    """
    ended = run_python(code)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("name", gpumpi.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(gpumpi, name)
    assert value is getattr(gpumpi, name)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__doc__


def test_nothing_else_is_public(run_python) -> None:
    assert gpumpi.__all__ == sorted(gpumpi.__all__)
    assert dir(gpumpi) == sorted(gpumpi.__all__)
    ended = run_python(
        """
        before = set(globals())
        from gpumpi import *
        import gpumpi
        found = set(globals()) - before - {"before", "gpumpi"}
        assert found == set(gpumpi.__all__), found
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_public_names_are_these() -> None:
    assert set(gpumpi.__all__) == {
        "DeadlineError",
        "FeatureUnavailableError",
        "GpumpiError",
        "JobError",
        "LauncherMismatchError",
        "OptionError",
        "RankInfo",
        "SchedulerFileError",
        "Session",
        "SessionError",
        "StartError",
        "__version__",
        "connect",
        "initialize",
        "on_preempt",
    }


@pytest.mark.parametrize("name", ["Initialize", "importlib_", "residency", "_HOME"])
def test_other_names_are_no_attributes(name: str) -> None:
    with pytest.raises(AttributeError, match=f"'gpumpi' has no attribute '{name}'"):
        getattr(gpumpi, name)


def test_run_is_a_module_and_initialize_a_function(run_python) -> None:
    code = """
        import types, gpumpi, gpumpi.run
        assert isinstance(gpumpi.run, types.ModuleType)
        assert isinstance(gpumpi.initialize, types.FunctionType)
    """
    ended = run_python(code)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert gpumpi.__version__ == __version__ == version("gpumpi")


def test_the_package_is_typed() -> None:
    from pathlib import Path

    assert (Path(gpumpi.__file__).parent / "py.typed").exists()
