from __future__ import annotations

import sys
from importlib import metadata

import distributed
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumpi import features
from gpumpi._version import __version__
from gpumpi.errors import FeatureUnavailableError
from gpumpi.features import State, load, probe, versions

KNOWN = ["bokeh", "cryptography", "dask", "distributed", "mpi4py"]
BY_ANOTHER_NAME = ["pynvml"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """Change what the installed metadata says of a package's version."""

    def install(version: str | None) -> None:
        def found(name: str) -> str:
            if version is None:
                raise metadata.PackageNotFoundError(name)
            return version

        monkeypatch.setattr(metadata, "version", found)

    return install


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "bokeh"])
def test_what_is_installed_is_available_in_its_version(name: str) -> None:
    feature = probe(name)
    assert feature.state is State.AVAILABLE
    assert feature.found == metadata.version(name)
    assert feature.name == name


def test_what_is_absent_is_not_installed(installed) -> None:
    installed(None)
    feature = probe("bokeh")
    assert (feature.state, feature.found) == (State.NOT_INSTALLED, "")


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("3.0.3", State.TOO_OLD),
        ("3", State.TOO_OLD),
        ("2.9.9.9", State.TOO_OLD),
        ("3.1", State.AVAILABLE),
        ("3.1.0", State.AVAILABLE),
        ("3.10", State.AVAILABLE),
        ("10.0", State.AVAILABLE),
        ("3.2.dev1+g12ab", State.AVAILABLE),
    ],
)
def test_versions_are_compared_as_numbers(installed, version, state) -> None:
    installed(version)
    assert probe("bokeh").state is state


@pytest.mark.parametrize("version", ["3.0rc10", "3.0b2", "3.0+local5", "3.0.dev20"])
def test_a_pre_release_of_an_older_version_is_too_old(installed, version) -> None:
    installed(version)
    assert probe("bokeh").state is State.TOO_OLD


@given(st.tuples(st.integers(0, 9), st.integers(0, 20), st.integers(0, 9)))
def test_releases_are_ordered_as_packaging_orders_them(numbers) -> None:
    from packaging.version import Version

    text = ".".join(map(str, numbers))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "version", lambda _: text)
        too_old = probe("bokeh").state is State.TOO_OLD
    assert too_old == (Version(text) < Version("3.1"))


def test_probing_imports_nothing(run_python) -> None:
    code = """
        import sys
        from gpumpi.features import probe
        for name in ("bokeh", "cryptography", "dask", "distributed", "mpi4py"):
            probe(name)
            assert name not in sys.modules, name
    """
    ended = run_python(code)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_loading_gives_the_module() -> None:
    assert load("distributed", why="to start a worker") is distributed


def test_loading_what_is_absent_says_why_and_how_to_get_it(installed) -> None:
    installed(None)
    with pytest.raises(FeatureUnavailableError) as caught:
        load("cryptography", why="to make the credentials of this job")
    assert str(caught.value) == (
        "importing cryptography to make the credentials of this job: it is not "
        "installed; cryptography>=42 is needed, no version of it was found. "
        'Next: python -m pip install "cryptography>=42"'
    )


def test_loading_what_is_too_old_names_both_versions(installed) -> None:
    installed("41.0.7")
    with pytest.raises(FeatureUnavailableError) as caught:
        load("cryptography", why="to make credentials")
    assert "cryptography>=42 is needed, version 41.0.7 was found" in str(caught.value)
    assert "older than the version that gpumpi needs" in str(caught.value)


def test_loading_what_is_broken_shows_the_error_of_its_import(
    run_python, tmp_path
) -> None:
    (tmp_path / "mpi4py.py").write_text("raise ImportError('libmpi.so is missing')\n")
    ended = run_python(
        """
        from gpumpi.errors import FeatureUnavailableError
        from gpumpi.features import load
        try:
            load("mpi4py", why="to talk between the ranks")
        except FeatureUnavailableError as error:
            print(error)
        """,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert "its import fails (libmpi.so is missing); mpi4py>=" in ended.stdout
    assert f"version {metadata.version('mpi4py')} was found" in ended.stdout


def test_the_versions_that_ranks_must_share() -> None:
    assert versions() == {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "gpumpi": __version__,
        "dask": metadata.version("dask"),
        "distributed": metadata.version("distributed"),
    }


def test_an_absent_package_has_no_version_to_share(installed) -> None:
    installed(None)
    assert versions()["dask"] == "none"


def test_the_known_packages_are_those_of_the_project() -> None:
    assert sorted(features._KNOWN) == sorted(KNOWN + BY_ANOTHER_NAME)
