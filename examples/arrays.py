"""What makes the weather of New York vary? Principal components with dask.array.

NumPy-style code on a chunked array: each worker factorises its rows, and the small
factors are combined (a "tall and skinny" QR), so no worker needs the whole array.
"""

import argparse
from pathlib import Path

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
from dask.distributed import Client
from prepare_data import check_data

HERE = Path(__file__).resolve().parent
NAMES = ["temp", "dewp", "humid", "pressure", "visib", "wind_east", "wind_north"]
RANK = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE / "data")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    options = parser.parse_args()
    data, out = options.data.resolve(), options.out.resolve()
    check_data(data, "weather")
    out.mkdir(parents=True, exist_ok=True)

    client = Client()
    hours = read_hours(data)
    mean, std = hours.mean(axis=0), hours.std(axis=0)
    standard = (hours - mean) / std

    u, s, vt = da.linalg.svd(standard)
    # The best table of rank 3: each hour told by three numbers instead of seven.
    nearest = (u[:, :RANK] * s[:RANK]) @ vt[:RANK]
    error = da.sqrt(((standard - nearest) ** 2).mean())
    mean, std, s, vt, error = dask.compute(mean, std, s, vt, error)

    explained = s**2 / (s**2).sum()
    components = fix_signs(vt)
    print(f"{len(hours):,} hours in {hours.numblocks[0]} chunks", end=" ")
    print(f"on {len(client.nthreads())} workers")
    print_components(explained, components)
    print(f"error with {RANK} components: {error:.4f} standard deviations")

    path = out / "arrays.npz"
    np.savez(
        path,
        names=NAMES,
        mean=mean,
        std=std,
        components=components,
        explained=explained,
        error=error,
    )
    print(f"wrote {path}")


def read_hours(data: Path) -> da.Array:
    """Read one row per airport and hour, with the wind as a vector."""
    weather = dd.read_parquet(
        data / "weather",
        columns=[*NAMES[:5], "wind_dir", "wind_speed"],
    ).dropna()
    angle = np.deg2rad(weather["wind_dir"])
    weather = weather.assign(
        wind_east=-weather["wind_speed"] * np.sin(angle),
        wind_north=-weather["wind_speed"] * np.cos(angle),
    )
    return weather[NAMES].to_dask_array().compute_chunk_sizes().rechunk({0: 3000})


def fix_signs(components: np.ndarray) -> np.ndarray:
    """Turn each component so that its largest weight is positive."""
    rows = np.arange(len(components))
    largest = components[rows, np.abs(components).argmax(axis=1)]
    return components * np.sign(largest)[:, np.newaxis]


def print_components(explained: np.ndarray, components: np.ndarray) -> None:
    print()
    print("component " + "".join(f"{number:>8}" for number in range(1, RANK + 1)))
    print("variance  " + "".join(f"{share:>8.1%}" for share in explained[:RANK]))
    for name, weights in zip(NAMES, components[:RANK].T, strict=True):
        print(f"{name:<10}" + "".join(f"{weight:>+8.2f}" for weight in weights))
    print()


if __name__ == "__main__":
    main()
