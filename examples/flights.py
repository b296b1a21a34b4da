"""Which aircraft does poor weather make late? From Parquet files to a plot.

This is plain Dask: nothing here knows of gpumpi.
"""

import argparse
from pathlib import Path

import dask
import dask.dataframe as dd
import pandas as pd
from dask.distributed import Client
from matplotlib.figure import Figure
from prepare_data import check_data

HERE = Path(__file__).resolve().parent
TYPE = ["manufacturer", "model", "carrier"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE / "data")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    options = parser.parse_args()
    data, out = options.data.resolve(), options.out.resolve()
    check_data(data, "flights", "weather", "planes")
    out.mkdir(parents=True, exist_ok=True)

    client = Client()
    flights = read_flights(data).persist()
    types, hours, total = dask.compute(
        rank_types(flights), count_by_hour(flights), flights.shape[0]
    )

    print(f"{total:,} flights with known weather and plane", end=" ")
    print(f"on {len(client.nthreads())} workers")
    print_types(types.head(12))
    types.to_csv(out / "flights.csv", index=False, float_format="%.4f")
    plot_hours(hours, out / "flights.png")
    print(f"wrote {out / 'flights.csv'} and {out / 'flights.png'}")


def read_flights(data: Path) -> dd.DataFrame:
    """Read flights that arrived, with their weather and the age of their plane."""
    flights = dd.read_parquet(
        data / "flights",
        columns=["origin", "time_hour", "hour", "carrier", "tailnum", "arr_delay"],
    ).dropna()

    weather = dd.read_parquet(
        data / "weather",
        columns=["origin", "time_hour", "wind_speed", "visib", "precip"],
    )
    poor = (
        (weather["visib"] < 5) | (weather["precip"] > 0) | (weather["wind_speed"] >= 20)
    )
    weather = weather.assign(poor=poor)[["origin", "time_hour", "poor"]]

    planes = dd.read_parquet(
        data / "planes", columns=["tailnum", "year", "manufacturer", "model"]
    ).rename(columns={"year": "plane_year"})

    flights = flights.merge(weather, on=["origin", "time_hour"])
    flights = flights.merge(planes, on="tailnum")
    late = flights["arr_delay"] > 15
    return flights.assign(
        late=late,
        late_poor=late & flights["poor"],
        age=2013 - flights["plane_year"],
    )


def rank_types(flights: dd.DataFrame) -> dd.DataFrame:
    """Compare types of aircraft; those that poor weather delays most come first."""
    types = (
        flights.groupby(TYPE)
        .agg(
            {
                "arr_delay": "count",
                "age": "mean",
                "poor": "sum",
                "late": "sum",
                "late_poor": "sum",
            },
            split_out=4,
        )
        .rename(columns={"arr_delay": "flights"})
        .reset_index()
    )
    # Few flights make shares that mean little.
    types = types[(types["flights"] >= 500) & (types["poor"] >= 100)]
    fair = (types["late"] - types["late_poor"]) / (types["flights"] - types["poor"])
    poor = types["late_poor"] / types["poor"]
    types = types.assign(late_fair=fair, late_poor=poor, penalty=poor - fair)
    types = types[[*TYPE, "flights", "age", "late_fair", "late_poor", "penalty"]]
    return types.sort_values("penalty", ascending=False)


def count_by_hour(flights: dd.DataFrame) -> dd.DataFrame:
    """Count flights and late ones by airport, weather and scheduled hour."""
    groups = flights.groupby(["origin", "poor", "hour"])["late"]
    return groups.agg(["count", "sum"])


def print_types(types: pd.DataFrame) -> None:
    print()
    print(f"{'':51}mean  arrivals > 15 min late")
    print(
        f"{'manufacturer':<18} {'model':<15} {'carrier'} {'flights':>7} "
        f"{'age':>4} {'fair':>6} {'poor':>6} {'penalty':>8}"
    )
    for row in types.itertuples():
        print(
            f"{row.manufacturer:<18.18} {row.model:<15.15} {row.carrier:<7} "
            f"{row.flights:>7,} {row.age:>4.0f} {row.late_fair:>6.1%} "
            f"{row.late_poor:>6.1%} {row.penalty:>+8.1%}"
        )
    print()


def plot_hours(hours: pd.DataFrame, path: Path) -> None:
    """Draw the share of late arrivals over the day, one panel per airport."""
    share = 100 * hours["sum"] / hours["count"].where(hours["count"] >= 50)
    share = share.unstack("poor").sort_index()
    airports = {"EWR": "Newark", "JFK": "Kennedy", "LGA": "LaGuardia"}

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, len(airports), sharex=True, sharey=True)
    for panel, (origin, name) in zip(panels, airports.items(), strict=True):
        lines = share.loc[origin]
        fair, poor = lines[False], lines[True]
        panel.fill_between(lines.index, fair, poor, color="tab:red", alpha=0.08)
        panel.plot(poor, "o-", color="tab:red", markersize=4, label="poor weather")
        panel.plot(fair, "o-", color="tab:blue", markersize=4, label="fair weather")
        panel.set_title(f"{name} ({origin})")
        panel.set_xticks(range(6, 24, 3))
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(0, 80)
    panels[0].set_ylabel("arrivals more than 15 min late (%)")
    panels[0].legend(loc="upper left", frameon=False)
    panels[1].set_xlabel("scheduled hour of departure")
    figure.suptitle("Late flights from New York in 2013", fontweight="bold")
    figure.supxlabel(
        "poor weather: rain or snow, visibility below 5 miles, or wind of 20 mph and "
        "more at the airport of departure",
        fontsize="small",
        color="dimgray",
    )
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
