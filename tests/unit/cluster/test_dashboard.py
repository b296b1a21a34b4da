from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tornado.httpclient import AsyncHTTPClient

from gpumpi.cluster.dashboard import make_prefix, serve_dashboard
from gpumpi.cluster.scheduler_main import JobScheduler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tornado.httpclient import HTTPResponse

PREFIX = "/Zm9yIHRlc3Rz-_x"

needs_bokeh = pytest.mark.skipif(
    importlib.util.find_spec("bokeh") is None, reason="bokeh is not installed"
)


def serve(
    use: Callable[
        [Callable[..., Awaitable[HTTPResponse]], JobScheduler], Awaitable[Any]
    ],
    http_address: str | None = "127.0.0.1:0",
) -> Any:
    """Run a real scheduler with its dashboard, and use its HTTP server."""

    async def main() -> Any:
        scheduler = JobScheduler(
            supervised=False,
            http_address=http_address,
            http_prefix=PREFIX,
            protocol="tcp",
            host="127.0.0.1",
            port=0,
        )
        if http_address is not None:
            serve_dashboard(scheduler, PREFIX)
        async with scheduler:

            async def get(path: str, **options: Any) -> HTTPResponse:
                return await AsyncHTTPClient().fetch(
                    f"http://127.0.0.1:{scheduler.http_server.port}{path}",
                    raise_error=False,
                    request_timeout=30,
                    **options,
                )

            return await use(get, scheduler)

    return asyncio.run(main())


# --------------------------------------------------------------------- prefix


def test_no_prefix_is_like_another() -> None:
    assert len({make_prefix() for _ in range(100)}) == 100


def test_a_prefix_is_a_path_of_128_bits_that_needs_no_quoting() -> None:
    prefix = make_prefix()
    assert prefix[0] == "/"
    assert len(prefix) == 1 + 22
    assert set(prefix[1:]) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


# ------------------------------------------------------------ without the path

SHUT = [
    "/",
    "/status",
    "/health",
    "/metrics",
    "/info/main/workers.html",
    "/other/status",
]


def test_the_address_alone_shows_nothing() -> None:
    async def use(get: Any, scheduler: JobScheduler) -> list[int]:
        return [(await get(path, follow_redirects=False)).code for path in SHUT]

    assert serve(use) == [404] * len(SHUT)


def test_the_list_of_paths_does_not_give_the_prefix_away() -> None:
    async def use(get: Any, scheduler: JobScheduler) -> bytes:
        return (await get("/sitemap.json")).body

    assert PREFIX.strip("/").encode() not in serve(use)


@needs_bokeh
def test_after_the_first_look_the_address_alone_still_shows_nothing() -> None:
    async def use(get: Any, scheduler: JobScheduler) -> list[tuple[int, str]]:
        assert (await get(f"{PREFIX}/status")).code == 200
        answers = [await get(path, follow_redirects=False) for path in SHUT]
        return [(each.code, each.headers.get("Location", "")) for each in answers]

    assert serve(use) == [(404, "")] * len(SHUT)


# --------------------------------------------------------------- with the path


@needs_bokeh
def test_the_first_look_is_sent_again_and_then_shown() -> None:
    async def use(get: Any, scheduler: JobScheduler) -> None:
        first = await get(f"{PREFIX}/status?x=1", follow_redirects=False)
        assert first.code == 302
        assert first.headers["Location"] == f"{PREFIX}/status?x=1"
        second = await get(f"{PREFIX}/status", follow_redirects=False)
        assert second.code == 200
        assert b"bokeh" in second.body.lower()
        assert (await get(f"{PREFIX}/other", follow_redirects=False)).code == 404

    serve(use)


@needs_bokeh
def test_two_first_looks_at_once_load_it_once() -> None:
    async def use(get: Any, scheduler: JobScheduler) -> list[int]:
        looks = [get(f"{PREFIX}/status") for _ in range(3)]
        codes = [each.code for each in await asyncio.gather(*looks)]
        loaded = [
            app
            for app in scheduler.http_application.applications
            if "Bokeh" in type(app).__name__
        ]
        return [*codes, len(loaded)]

    assert serve(use) == [200, 200, 200, 1]


def test_health_is_answered_under_the_prefix_without_bokeh() -> None:
    async def use(get: Any, scheduler: JobScheduler) -> bytes:
        return (await get(f"{PREFIX}/health")).body

    assert serve(use) == b"ok"


def test_without_bokeh_the_first_look_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed.dashboard.scheduler", None)

    async def use(get: Any, scheduler: JobScheduler) -> HTTPResponse:
        return await get(f"{PREFIX}/status")

    answer = serve(use)
    assert answer.code == 503
    assert b"python -m pip install 'gpumpi[dashboard]'" in answer.body
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_bokeh_waits_for_the_first_look(run_python) -> None:
    code = """
        import asyncio, sys
        from gpumpi.cluster.dashboard import serve_dashboard
        from gpumpi.cluster.scheduler_main import JobScheduler
        async def main():
            scheduler = JobScheduler(
                supervised=False, http_address="127.0.0.1:0", http_prefix="/x",
                host="127.0.0.1", port=0,
            )
            serve_dashboard(scheduler, "/x")
            async with scheduler:
                assert scheduler.http_server.port > 0
                assert "bokeh" not in sys.modules
        asyncio.run(main())
    """
    ended = run_python(code)
    assert ended.returncode == 0, ended.stderr


# ------------------------------------------------------------------ no server


def test_without_an_address_there_is_no_http_server() -> None:
    async def use(get: Any, scheduler: JobScheduler) -> list[int]:
        assert getattr(scheduler, "http_server", None) is None
        return [
            each.laddr.port
            for each in psutil.Process().net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        ]

    async def port_only(get: Any, scheduler: JobScheduler) -> list[int]:
        before = await use(get, scheduler)
        return [port for port in before if port == scheduler.port]

    assert len(serve(port_only, http_address=None)) == 1


def test_the_server_listens_where_it_was_told_only() -> None:
    async def use(get: Any, scheduler: JobScheduler) -> set[str]:
        return {
            each.laddr.ip
            for each in psutil.Process().net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
            and each.laddr.port in (scheduler.port, scheduler.http_server.port)
        }

    assert serve(use) == {"127.0.0.1"}


def test_a_port_that_is_taken_is_an_error_and_not_another_port() -> None:
    async def use(get: Any, scheduler: JobScheduler) -> None:
        raise AssertionError("it started")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises((RuntimeError, UserWarning)) as caught:
            serve(use, http_address=f"127.0.0.1:{port}")
    assert str(port) in str(caught.value.__cause__ or caught.value)
