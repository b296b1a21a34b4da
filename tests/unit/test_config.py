from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import dask
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumpi.cli.run import run
from gpumpi.config import (
    ClusterOptions,
    Layout,
    Options,
    Protocol,
    ReportOptions,
    SchedulerOptions,
    Security,
    WorkerOptions,
    option_fields,
    resolve,
)
from gpumpi.errors import OptionError

FIELDS = {item.name: item for item in option_fields()}
GROUPS = (ClusterOptions, WorkerOptions, SchedulerOptions, ReportOptions)

#: By option: a text, the same as a native value, what it means; another text, what
#: that means.
SAMPLES: dict[str, tuple[str, Any, Any, str, Any]] = {
    "protocol": ("tcp", Protocol.TCP, Protocol.TCP, "auto", Protocol.AUTO),
    "security": ("none", "none", Security.NONE, "tls", Security.TLS),
    "layout": ("dedicated", "dedicated", Layout.DEDICATED, "shared", Layout.SHARED),
    "nanny": ("true", True, True, "no", False),
    "join": ("yes", True, True, "off", False),
    "start_timeout": ("90s", 90, 90.0, "2m", 120.0),
    "stop_timeout": ("500ms", 0.5, 0.5, "3", 3.0),
    "worker_ttl": ("5m", 300, 300.0, "7 s", 7.0),
    "gpus": ("0, 2", [0, 2], ("0", "2"), "none", "none"),
    "nthreads": ("3", 3, 3, "auto", "auto"),
    "memory_limit": ("2GiB", 2**31, 2**31, "auto", "auto"),
    "local_directory": ("/scratch", Path("/scratch"), Path("/scratch"), "x", Path("x")),
    "interface": ("ib0", "ib0", "ib0", "eth1", "eth1"),
    "preload": ("a.py,b", ["a.py", "b"], ("a.py", "b"), "c", ("c",)),
    "resources": (
        "GPU=1,MEMORY=4e9",
        {"GPU": 1, "MEMORY": 4e9},
        (("GPU", 1.0), ("MEMORY", 4e9)),
        "FPGA=2",
        (("FPGA", 2.0),),
    ),
    "scheduler_file": (
        "/x/s.json",
        Path("/x/s.json"),
        Path("/x/s.json"),
        "t",
        Path("t"),
    ),
    "scheduler_port": ("8786", 8786, 8786, "0", 0),
    "dashboard_address": ("8787", 8787, "127.0.0.1:8787", "0.0.0.0:1", "0.0.0.0:1"),
    "dashboard": ("off", False, False, "on", True),
    "log_dir": ("/logs", Path("/logs"), Path("/logs"), "logs", Path("logs")),
    "check": ("1", True, True, "0", False),
    "quiet": ("on", True, True, "false", False),
}
#: What an option cannot be given without.
COMPANIONS: dict[str, dict[str, object]] = {"join": {"scheduler_file": "s.json"}}
SOURCES = ("dask", "environment", "arguments")


def resolve_from(*given: tuple[str, str, object], **arguments: object) -> Options:
    """Resolve options given as (source, name, value)."""
    sources: dict[str, dict[str, Any]] = {source: {} for source in SOURCES}
    for source, name, value in given:
        spelled = {
            "dask": name.replace("_", "-"),
            "environment": f"GPUMPI_{name.upper()}",
            "arguments": name,
        }[source]
        sources[source][spelled] = value
    return resolve(
        sources["arguments"] | arguments,
        environment=sources["environment"],
        dask_config=sources["dask"],
    )


def value_of(options: Options, name: str) -> object:
    for group in fields(options):
        if hasattr(getattr(options, group.name), name):
            return getattr(getattr(options, group.name), name)
    raise AssertionError(name)


def command_line(*words: str) -> dict[str, Any]:
    """What the command line gives to resolve()."""
    params = run.make_context("gpumpi", [*words, "script.py"]).params
    return {name: params[name] for name in FIELDS}


# ---------------------------------------------------------------- the fields


def test_every_option_has_samples() -> None:
    assert set(SAMPLES) == set(FIELDS)


def test_no_name_stands_in_two_groups() -> None:
    names = Counter(item.name for group in GROUPS for item in fields(group))
    assert [name for name, count in names.items() if count > 1] == []
    assert set(names) == set(FIELDS)


def test_no_option_is_called_as_another_parameter_of_the_command_line() -> None:
    names = Counter(parameter.name for parameter in run.params)
    assert [name for name, count in names.items() if count > 1] == []
    flags = Counter(flag for parameter in run.params for flag in parameter.opts)
    assert [flag for flag, count in flags.items() if count > 1] == []


@pytest.mark.parametrize("name", FIELDS)
def test_every_option_has_a_help_text_of_one_line(name: str) -> None:
    text = FIELDS[name].metadata["help"]
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize("name", FIELDS)
def test_a_default_means_what_its_own_text_means(name: str) -> None:
    default = FIELDS[name].default
    if default is None or default == ():
        return
    options = resolve_from(("environment", name, str(default)))
    assert value_of(options, name) == default


def test_nothing_given_means_the_defaults() -> None:
    assert resolve({}, environment={}, dask_config={}) == Options()


def test_options_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().worker.nthreads = 3  # type: ignore[misc]


# ---------------------------------------------------------------- precedence


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_value_of_any_source_goes_before_the_default(source: str, name: str) -> None:
    text, _, value, other_text, other = SAMPLES[name]
    more = COMPANIONS.get(name, {})
    assert value_of(resolve_from((source, name, text), **more), name) == value
    assert value_of(resolve_from((source, name, other_text), **more), name) == other
    assert value != other


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(
    ("lower", "higher"),
    [("dask", "environment"), ("dask", "arguments"), ("environment", "arguments")],
)
def test_the_higher_source_goes_before_the_lower(
    name: str, lower: str, higher: str
) -> None:
    text, _, value, other_text, other = SAMPLES[name]
    more = COMPANIONS.get(name, {})
    first = resolve_from((lower, name, text), (higher, name, other_text), **more)
    second = resolve_from((lower, name, other_text), (higher, name, text), **more)
    assert value_of(first, name) == other
    assert value_of(second, name) == value


@pytest.mark.parametrize("name", FIELDS)
def test_an_argument_of_none_is_not_given(name: str) -> None:
    text, _, value, *_ = SAMPLES[name]
    given_ = [("environment", name, text), ("arguments", name, None)]
    if name == "join":
        given_.append(("environment", "scheduler_file", "s.json"))
    assert value_of(resolve_from(*given_), name) == value


@pytest.mark.parametrize("name", FIELDS)
def test_a_native_value_means_the_same_as_its_text(name: str) -> None:
    text, native, _, *_ = SAMPLES[name]
    more = COMPANIONS.get(name, {})
    from_text = resolve_from(("environment", name, text), **more)
    assert resolve_from(("arguments", name, native), **more) == from_text
    assert resolve_from(("dask", name, native), **more) == from_text


@pytest.mark.parametrize("name", FIELDS)
def test_one_option_changes_no_other(name: str) -> None:
    text, _, value, *_ = SAMPLES[name]
    more = COMPANIONS.get(name, {})
    changed = dict(resolve_from(("arguments", name, text), **more).changed())
    assert changed.pop(name) == value
    assert set(changed) == set(more)


WORDS = st.text("abcdefgxyz0123456789_", min_size=1, max_size=8)
TEXTS: dict[str, st.SearchStrategy[str]] = {
    "protocol": st.sampled_from(list(Protocol)).map(str),
    "security": st.sampled_from(list(Security)).map(str),
    "layout": st.just("shared"),
    "nthreads": st.one_of(st.just("auto"), st.integers(1, 512).map(str)),
    "memory_limit": st.one_of(
        st.just("auto"),
        st.builds(
            "{}{}".format, st.integers(1, 999), st.sampled_from(["", "MB", "GiB"])
        ),
    ),
    "gpus": st.one_of(
        st.sampled_from(["auto", "none"]),
        st.lists(st.integers(0, 15).map(str), min_size=1, max_size=8).map(",".join),
    ),
    "resources": st.lists(
        st.builds("{}={}".format, WORDS, st.integers(0, 99)), max_size=3
    ).map(",".join),
    "preload": st.lists(WORDS, max_size=3).map(",".join),
    "scheduler_port": st.integers(0, 65535).map(str),
    "dashboard_address": st.builds(
        "{}{}".format, st.sampled_from(["", ":", "10.0.0.1:"]), st.integers(0, 65535)
    ),
}
_SWITCH = st.sampled_from(["1", "0", "true", "False", "YES", "no", "on", "Off"])
_SECONDS = st.builds(
    "{}{}".format, st.integers(1, 999), st.sampled_from(["", "s", "ms", "m"])
)


def texts_of(name: str) -> st.SearchStrategy[str]:
    """Texts that the option takes."""
    if name in TEXTS:
        return TEXTS[name]
    if FIELDS[name].metadata["switch"]:
        return _SWITCH
    return _SECONDS if isinstance(FIELDS[name].default, float) else WORDS


@pytest.mark.parametrize("name", FIELDS)
@given(data=st.data())
def test_one_text_means_the_same_in_all_sources(name: str, data: st.DataObject) -> None:
    text = data.draw(texts_of(name))
    more = COMPANIONS.get(name, {})
    found = [resolve_from((source, name, text), **more) for source in SOURCES]
    assert found[0] == found[1] == found[2]
    if not FIELDS[name].metadata["switch"]:
        line = command_line(f"--{name.replace('_', '-')}={text}")
        assert resolve(line | more, environment={}, dask_config={}) == found[0]


# --------------------------------------------------- where the sources stand


@pytest.mark.parametrize("name", FIELDS)
def test_the_command_line_has_every_option(name: str) -> None:
    text, _, value, *_ = SAMPLES[name]
    about = FIELDS[name].metadata
    flag = name.replace("_", "-")
    if about["switch"]:
        words = [f"--no-{flag}" if about["negative"] else f"--{flag}"]
    else:
        words = [f"--{flag}", text]
    more = COMPANIONS.get(name, {})
    given_ = command_line(*words)
    assert {key for key, value in given_.items() if value is not None} == {name}
    options = resolve(given_ | more, environment={}, dask_config={})
    assert value_of(options, name) == value


@pytest.mark.parametrize("name", FIELDS)
def test_the_command_line_goes_before_the_environment(name: str) -> None:
    text, _, value, other_text, _ = SAMPLES[name]
    about = FIELDS[name].metadata
    flag = name.replace("_", "-")
    switch = [f"--no-{flag}" if about["negative"] else f"--{flag}"]
    words = switch if about["switch"] else [f"--{flag}", text]
    environment = {f"GPUMPI_{name.upper()}": other_text}
    given_ = command_line(*words) | COMPANIONS.get(name, {})
    options = resolve(given_, environment=environment, dask_config={})
    assert value_of(options, name) == value


def test_the_real_environment_and_configuration_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GPUMPI_NTHREADS", "3")
    monkeypatch.setenv("OTHER_NTHREADS", "4")
    with dask.config.set({"gpumpi.start-timeout": "2m", "gpumpi.nthreads": 5}):
        options = resolve({})
    assert dict(options.changed()) == {"nthreads": 3, "start_timeout": 120.0}


def test_a_configuration_key_may_have_hyphens_or_underscores() -> None:
    for key in ("worker-ttl", "worker_ttl"):
        options = resolve({}, environment={}, dask_config={key: 5})
        assert options.cluster.worker_ttl == 5.0


def test_an_empty_section_of_the_configuration_gives_nothing() -> None:
    with dask.config.set({"gpumpi": None}):
        assert resolve({}, environment={}) == Options()


# ------------------------------------------------------------- unknown names


@pytest.mark.parametrize(
    ("source", "spelled", "cure"),
    [
        ("arguments", "nthread", "nthreads"),
        ("environment", "GPUMPI_NTHREAD", "GPUMPI_NTHREADS"),
        ("dask", "gpumpi.nthread", "gpumpi.nthreads"),
    ],
)
def test_an_unknown_name_is_refused_with_the_list_and_the_nearest(
    source: str, spelled: str, cure: str
) -> None:
    with pytest.raises(OptionError) as caught:
        resolve_from((source, "nthread", "2"))
    text = str(caught.value)
    assert f"{spelled} is not an option" in text
    assert text.endswith(f"Next: write {cure}")
    known = text.partition("known are ")[2].partition(". Next")[0].split(", ")
    assert known == [
        spelled.replace("nthread", name).replace("NTHREAD", name.upper())
        for name in FIELDS
    ]


def test_a_name_like_no_option_has_no_nearest() -> None:
    with pytest.raises(OptionError, match="take one of these, or leave it out"):
        resolve({"zzzzzz": 1}, environment={}, dask_config={})


def test_an_unknown_name_is_refused_even_without_a_value() -> None:
    with pytest.raises(OptionError, match="nthread is not an option"):
        resolve({"nthread": None}, environment={}, dask_config={})


# --------------------------------------------------------------- bad values

BAD: list[tuple[str, object, str]] = [
    ("protocol", "ucx", "allowed: auto, tcp"),
    ("protocol", "", "allowed: auto, tcp"),
    ("security", "ssl", "allowed: tls, none"),
    ("layout", "DEDICATED", "allowed: shared, dedicated"),
    ("nanny", "maybe", "1, true, yes, on and 0, false, no, off are allowed"),
    ("nanny", 2, "1, true, yes, on and 0, false, no, off are allowed"),
    ("start_timeout", "soon", "a number of seconds above 0"),
    ("stop_timeout", 0, "a number of seconds above 0"),
    ("worker_ttl", "-1", "a number of seconds above 0"),
    ("gpus", "", "auto, none, or a list of indices and UUIDs is allowed"),
    ("gpus", "auto,1", "auto, none, or a list of indices and UUIDs is allowed"),
    ("gpus", [], "auto, none, or a list of indices and UUIDs is allowed"),
    ("nthreads", "0", "numbers from 1 are allowed"),
    ("nthreads", "two", "numbers from 1 are allowed"),
    ("nthreads", 1.5, "numbers from 1 are allowed"),
    ("memory_limit", "0", "a number above 0 with an optional unit is allowed"),
    ("memory_limit", "half", "a number above 0 with an optional unit is allowed"),
    ("resources", "GPU", "NAME=NUMBER pairs"),
    ("resources", "GPU=one", "NAME=NUMBER pairs"),
    ("scheduler_port", "-1", "numbers from 0 up to 65535 are allowed"),
    ("scheduler_port", 65536, "numbers from 0 up to 65535 are allowed"),
    ("scheduler_port", "http", "numbers from 0 up to 65535 are allowed"),
    ("dashboard_address", "here", "numbers from 0 up to 65535 are allowed"),
    ("dashboard_address", "localhost:http", "numbers from 0 up to 65535 are allowed"),
    ("dashboard_address", "1.2.3.4:99999", "numbers from 0 up to 65535 are allowed"),
    ("dashboard_address", "a:-1", "numbers from 0 up to 65535 are allowed"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
@pytest.mark.parametrize(
    ("source", "spelled"),
    [
        ("arguments", "{} from the arguments: "),
        ("environment", "GPUMPI_{} from the environment: "),
        ("dask", "gpumpi.{} from Dask's configuration: "),
    ],
)
def test_a_bad_value_is_refused_with_its_source_and_what_is_allowed(
    name: str, value: object, allowed: str, source: str, spelled: str
) -> None:
    with pytest.raises(OptionError) as caught:
        resolve_from((source, name, value))
    text = str(caught.value)
    shown = name.upper() if source == "environment" else name
    assert text.startswith(spelled.format(shown))
    assert allowed in text
    assert "got " in text
    assert "Next: " in text


@pytest.mark.parametrize("name", ["local_directory", "log_dir", "scheduler_file"])
def test_a_path_in_the_home_of_nobody_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} from the arguments"):
        resolve_from(("arguments", name, "~no-such-user-here/x"))


@pytest.mark.parametrize("name", ["local_directory", "log_dir", "scheduler_file"])
def test_an_empty_path_is_refused_and_not_the_current_folder(name: str) -> None:
    with pytest.raises(OptionError, match=f"GPUMPI_{name.upper()} from the env"):
        resolve_from(("environment", name, ""))


@pytest.mark.parametrize("text", ["=1", "GPU=nan", "GPU=inf", "GPU=-1"])
def test_resources_without_a_name_or_a_finite_amount_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="NAME=NUMBER pairs"):
        resolve_from(("arguments", "resources", text))


@pytest.mark.parametrize("text", ["8787", ":8787", "127.0.0.1:8787"])
def test_a_dashboard_without_a_host_listens_on_loopback(text: str) -> None:
    options = resolve_from(("arguments", "dashboard_address", text))
    assert options.scheduler.dashboard_address == "127.0.0.1:8787"


def test_a_bad_value_of_a_lower_source_is_refused_although_a_higher_is_good() -> None:
    with pytest.raises(OptionError, match="GPUMPI_NTHREADS from the environment"):
        resolve_from(("environment", "nthreads", "0"), nthreads=2)


def test_a_home_is_put_in_for_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    options = resolve_from(("arguments", "log_dir", "~/logs"))
    assert options.report.log_dir == Path("/home/somebody/logs")


# ----------------------------------------------------------- contradictions


def test_joining_needs_the_file_of_the_running_cluster() -> None:
    with pytest.raises(OptionError) as caught:
        resolve_from(("arguments", "join", True))
    assert "got --join without --scheduler-file" in str(caught.value)
    assert "Next: add --scheduler-file FILE" in str(caught.value)


def test_ranks_that_join_cannot_be_dedicated() -> None:
    with pytest.raises(OptionError) as caught:
        resolve_from(
            ("environment", "layout", "dedicated"),
            ("dask", "scheduler_file", "s.json"),
            join=True,
        )
    assert "got --join with --layout dedicated" in str(caught.value)


def test_a_file_without_joining_is_fine() -> None:
    options = resolve_from(("arguments", "scheduler_file", "s.json"))
    assert not options.cluster.join


def test_changed_names_what_differs_from_the_defaults_in_order() -> None:
    options = resolve({"quiet": True, "nthreads": 2}, environment={}, dask_config={})
    assert list(options.changed()) == [("nthreads", 2), ("quiet", True)]
    assert list(Options().changed()) == []
