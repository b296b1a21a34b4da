"""The session as a context manager: a cluster for one part of an MPI script.

    mpirun -n 4 python examples/session.py

Every rank runs this file. Rank 0 goes on into the `with` block; the others work for
it inside `gpumpi.initialize()` and leave there when it is done.
"""

import argparse
from pathlib import Path

import dask.dataframe as dd
import pandas as pd
from dask.distributed import Client
from prepare_data import check_data

import gpumpi

HERE = Path(__file__).resolve().parent


def main() -> None:
    with gpumpi.initialize() as session:
        for rank in session.ranks:
            print(f"rank {rank.rank} on {rank.host} has worker {rank.worker}")
        compare_airlines(session.client)


def compare_airlines(client: Client) -> None:
    """Print and write the mean delays of each airline, the latest first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE / "data")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    options = parser.parse_args()
    data, out = options.data.resolve(), options.out.resolve()
    check_data(data, "flights", "airlines")
    out.mkdir(parents=True, exist_ok=True)

    flights = dd.read_parquet(
        data / "flights", columns=["carrier", "dep_delay", "arr_delay"]
    ).dropna()
    airlines = dd.read_parquet(data / "airlines")
    delays = (
        flights.assign(flights=1)
        .groupby("carrier")
        .agg({"flights": "sum", "dep_delay": "mean", "arr_delay": "mean"})
        .reset_index()
        .merge(airlines, on="carrier")
    )
    delays = client.compute(delays).result()
    delays = delays.sort_values("arr_delay", ascending=False, ignore_index=True)
    delays = delays[["carrier", "name", "flights", "dep_delay", "arr_delay"]]

    print_delays(delays)
    path = out / "session.csv"
    delays.to_csv(path, index=False, float_format="%.4f")
    print(f"wrote {path}")


def print_delays(delays: pd.DataFrame) -> None:
    print()
    print(f"{'':>39}  mean delay (min) at")
    print(f"{'airline':<30}  {'flights':>7}  {'departure':>10}  {'arrival':>7}")
    for row in delays.itertuples():
        print(
            f"{row.name:<30}  {row.flights:>7,}"
            f"  {row.dep_delay:>10.1f}  {row.arr_delay:>7.1f}"
        )
    print()


if __name__ == "__main__":
    main()
