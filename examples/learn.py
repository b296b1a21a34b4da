"""Will a flight be late? A grid search of scikit-learn on Dask's workers.

Dask reads and joins the tables; joblib then sends scikit-learn's fits to the workers.
"""

import argparse
import json
from pathlib import Path

import dask.dataframe as dd
import joblib
import pandas as pd
from dask.distributed import Client
from prepare_data import check_data
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, train_test_split

HERE = Path(__file__).resolve().parent
FLIGHT = ["month", "day", "hour", "distance", "carrier", "origin"]
WEATHER = ["temp", "humid", "wind_speed", "precip", "visib"]
GRID = {"max_depth": [6, 12], "min_samples_leaf": [5, 20]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE / "data")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    options = parser.parse_args()
    data, out = options.data.resolve(), options.out.resolve()
    check_data(data, "flights", "weather")
    out.mkdir(parents=True, exist_ok=True)

    client = Client()
    features, late = read_sample(data)
    train, test, late_train, late_test = train_test_split(
        features, late, test_size=0.25, random_state=0, stratify=late
    )
    search = GridSearchCV(
        RandomForestClassifier(n_estimators=20, random_state=0, n_jobs=1),
        GRID,
        scoring="roc_auc",
        cv=3,
    )
    with joblib.parallel_config(backend="dask"):
        search.fit(train, late_train)

    score = roc_auc_score(late_test, search.predict_proba(test)[:, 1])
    weights = pd.Series(search.best_estimator_.feature_importances_, train.columns)
    weights = weights.sort_values(ascending=False)
    result = {
        "flights": len(features),
        "late": float(late.mean()),
        "grid": [
            {**point, "roc_auc": float(mean)}
            for point, mean in zip(
                search.cv_results_["params"],
                search.cv_results_["mean_test_score"],
                strict=True,
            )
        ],
        "best": search.best_params_,
        "roc_auc": float(score),
        "importance": weights.to_dict(),
    }
    print(f"{len(features):,} flights on {len(client.nthreads())} workers")
    print_result(result)
    path = out / "learn.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {path}")


def read_sample(data: Path) -> tuple[pd.DataFrame, pd.Series]:
    """Read about one flight in 16: what is known before it, and if it was late."""
    flights = dd.read_parquet(
        data / "flights", columns=[*FLIGHT, "flight", "time_hour", "arr_delay"]
    )
    # A rule, not a random draw: the same flights however the work is cut.
    flights = flights[(flights["flight"] + flights["day"]) % 16 == 0].dropna()
    weather = dd.read_parquet(
        data / "weather", columns=["origin", "time_hour", *WEATHER]
    ).dropna()
    sample = flights.merge(weather, on=["origin", "time_hour"]).compute()

    # Workers finish in any order; rows must not depend on it.
    sample = sample.sort_values(["time_hour", "carrier", "flight"], ignore_index=True)
    features = pd.get_dummies(
        sample[FLIGHT + WEATHER].assign(weekday=sample["time_hour"].dt.day_of_week),
        columns=["carrier", "origin"],
    )
    return features, sample["arr_delay"] > 15


def print_result(result: dict) -> None:
    print()
    print("max_depth  min_samples_leaf  ROC AUC (3 folds)")
    for point in result["grid"]:
        print(
            f"{point['max_depth']:>9}  {point['min_samples_leaf']:>16}"
            f"  {point['roc_auc']:>17.4f}"
        )
    print()
    print(f"late by more than 15 min: {result['late']:.1%}")
    print(f"best: {result['best']}")
    print(f"ROC AUC on flights not seen before: {result['roc_auc']:.4f}")
    print("matters most:", ", ".join(list(result["importance"])[:5]))
    print()


if __name__ == "__main__":
    main()
