"""The dashboard: Dask's own, loaded when somebody first looks, at a secret path.

Importing bokeh costs 0.7 s of CPU and more memory than the scheduler itself, so it
waits for the first request. The path prefix is the password, as in Jupyter's token
URLs: the address alone shows nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
from typing import TYPE_CHECKING, Any

import tornado.web as web

if TYPE_CHECKING:
    from distributed import Scheduler

__all__ = ["make_prefix", "serve_dashboard"]

_MISSING = (
    "The dashboard needs bokeh: python -m pip install 'gpumpi[dashboard]', "
    "then start the job again.\n"
)


def make_prefix() -> str:
    """A new path that cannot be guessed, as URL text with a slash before it."""
    return "/" + secrets.token_urlsafe(16)


class _FirstLook(web.RequestHandler):  # type: ignore[misc]
    """Load the dashboard, then send the same request again."""

    def initialize(self, load: Any) -> None:
        self._load = load

    async def get(self) -> None:
        if await self._load():
            self.redirect(self.request.uri, permanent=False)
        else:
            self.set_status(503)
            self.set_header("Content-Type", "text/plain")
            self.finish(_MISSING)


def show_only(application: Any, prefix: str) -> None:
    """Answer nothing outside the prefix: Dask's ``/sitemap.json`` lists all paths."""
    find = application.find_handler

    def find_handler(request: Any, **options: Any) -> Any:
        if not request.path.startswith(f"{prefix}/") and request.path != prefix:
            return application.get_handler_delegate(
                request, web.ErrorHandler, {"status_code": 404}
            )
        return find(request, **options)

    application.find_handler = find_handler


def serve_dashboard(scheduler: Scheduler, prefix: str) -> None:
    """Have the dashboard loaded at the first request under its prefix.

    Local to the scheduler process; call it before the scheduler starts.
    """
    show_only(scheduler.http_application, prefix)
    lock = asyncio.Lock()
    application = web.Application()
    state = {"loaded": False}

    async def load() -> bool:
        async with lock:
            if state["loaded"]:
                return True
            try:
                # In a thread: the scheduler must answer its workers meanwhile.
                module = await asyncio.to_thread(
                    importlib.import_module, "distributed.dashboard.scheduler"
                )
            except ImportError:
                return False
            scheduler.http_application.applications.remove(application)
            module.connect(
                scheduler.http_application,
                scheduler.http_server,
                scheduler,
                prefix=prefix,
            )
            state["loaded"] = True
            return True

    application.add_handlers(
        r".*", [(rf"{prefix}(?:/.*)?", _FirstLook, {"load": load})]
    )
    scheduler.http_application.add_application(application)
