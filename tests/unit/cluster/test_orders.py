from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest

from gpumpi.cluster.orders import dask_config, scheduler_orders
from gpumpi.cluster.security import Credentials
from gpumpi.config import resolve
from gpumpi.layout import make_plan
from gpumpi.topology.host import HostFacts

CREDENTIALS = Credentials(key="k", certificate="c")


def orders(
    *,
    first_name: int = 0,
    credentials: Credentials | None = None,
    script_folder: str | None = None,
    **given: Any,
) -> dict[str, Any]:
    options = resolve(given, environment={}, dask_config={})
    hosts = {
        rank: HostFacts(
            name=f"n{rank}",
            identity=f"n{rank}",
            cpus=(0,),
            cpu_quota=math.inf,
            memory_bytes=2**30,
            addresses={"ib0": f"10.1.0.{rank}"},
            default_address=f"10.0.0.{rank}",
            gpus=0,
        )
        for rank in range(2)
    }
    return scheduler_orders(
        options,
        make_plan(hosts, options, first_name=first_name),
        credentials,
        scratch="/scratch/r0",
        script_folder=script_folder,
        http_prefix="/secret",
    )


def test_the_orders_are_one_line_of_json() -> None:
    found = orders(log_dir="logs", scheduler_port=8786)
    assert json.loads(json.dumps(found)) == found
    assert "\n" not in json.dumps(found)


def test_it_listens_where_the_plan_says() -> None:
    assert (orders()["host"], orders()["port"]) == ("10.0.0.0", 0)
    found = orders(interface="ib0", scheduler_port=8786)
    assert (found["host"], found["port"]) == ("10.1.0.0", 8786)


def test_the_host_of_every_worker_is_told_by_its_name() -> None:
    assert orders()["hosts"] == {"0": "n0", "1": "n1"}
    assert orders(first_name=5)["hosts"] == {"5": "n0", "6": "n1"}


def test_the_dashboard_may_be_left_out() -> None:
    found = orders(dashboard_address="0.0.0.0:8787")
    assert (found["http_address"], found["http_prefix"]) == ("0.0.0.0:8787", "/secret")
    assert orders(dashboard=False)["http_address"] is None


def test_the_folder_of_the_logs_does_not_depend_on_the_current_one(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert orders(log_dir="logs")["log_dir"] == str(tmp_path / "logs")
    assert orders()["log_dir"] is None


@pytest.mark.parametrize(("nanny", "ttl"), [(True, 30.0), (False, 90.0)])
def test_what_the_options_say_of_the_workers_is_told(nanny, ttl) -> None:
    found = orders(nanny=nanny, worker_ttl=ttl)
    assert (found["supervised"], found["worker_ttl"]) == (nanny, ttl)


def test_credentials_are_told_where_there_are_any() -> None:
    assert orders()["tls"] is None
    assert orders(credentials=CREDENTIALS)["tls"] == {"key": "k", "certificate": "c"}


def test_the_folder_of_the_script_comes_first_on_the_path() -> None:
    assert orders(script_folder="/x")["path"] == ["/x", *sys.path]
    assert orders()["path"] == sys.path
    assert orders(script_folder=sys.path[-1])["path"] == sys.path


def test_temporary_files_of_dask_go_to_the_scratch_folder() -> None:
    found = orders()["config"]
    assert found == dask_config("/scratch/r0")
    assert found["temporary-directory"] == "/scratch/r0"
