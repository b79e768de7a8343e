"""The page on the server. Gradio takes seconds to import: the API answers before that, and never waits for it.

Gradio serves far more than the page needs: files by path, addresses that it fetches, recordings, its own editor. Only
the routes listed here reach it.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route

from serving.server.asgi import Application, Receive, Scope, Send
from serving.server.limits import PARTS, replayed
from serving.server.refusals import RefusedError
from serving.server.service import Service
from serving.server.settings import MEBIBYTE
from serving.web import uploads
from stages.running.errors import UserError

API = "/gradio_api"
FILE, UPLOAD, JOIN = f"{API}/file=", f"{API}/upload", f"{API}/queue/join"
ROUTES = (
    *("/", "/config", "/theme.css", "/manifest.json", "/favicon.ico", *(f"{path}{{rest:path}}" for path in PARTS)),
    *(UPLOAD, f"{API}/upload_progress", JOIN, f"{API}/queue/data", f"{FILE}{{rest:path}}"),
)
PERIOD = 30
"""Seconds between two looks at the uploads."""


def mount(app: FastAPI, service: Service) -> None:
    """Put the page on `app`, behind its own routes. Raises UserError where Gradio is not installed."""
    if find_spec("gradio") is None:
        raise UserError("the page needs Gradio: `uv pip install --group serving`, or start with --no-web")
    page, around = Page(service), app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(of: FastAPI) -> AsyncIterator[None]:
        async with around(of), page.running():
            yield

    app.router.lifespan_context = lifespan
    app.router.routes.extend(Route(path, page, include_in_schema=False) for path in ROUTES)


class Page:
    """An ASGI application that lets a request wait until Gradio is there."""

    def __init__(self, service: Service) -> None:
        self.service, self.folder = service, Path()
        self.made: asyncio.Future[Application]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        made, path = await asyncio.shield(self.made), scope["path"]
        if path.startswith(FILE):
            self.uploaded(path[len(FILE) :])
        if path == UPLOAD:
            self.sweep()
        if path == JOIN:
            receive = await self.checked(receive)
        await made(scope, receive, send)

    def uploaded(self, path: Any) -> None:
        """Raises RefusedError for a path that is no upload's: Gradio would read other files, and fetch addresses."""
        if not isinstance(path, str) or not Path(os.path.normpath(path)).is_relative_to(self.folder):
            raise RefusedError(HTTPStatus.NOT_FOUND, "no such file; expected one that was uploaded here")

    async def checked(self, receive: Receive) -> Receive:
        """The same body, where it names no file but uploads. Raises RefusedError."""

        def check(found: dict[str, Any]) -> dict[str, Any]:
            if found.get("path") is not None:
                self.uploaded(found["path"])
            return found

        body = (await receive()).get("body", b"")
        try:
            json.loads(body, object_hook=check)
        except (ValueError, RecursionError) as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}") from None
        return replayed(body, receive)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.made = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def run(self) -> None:
        with TemporaryDirectory(prefix="foldstack-", ignore_cleanup_errors=True) as folder:
            self.folder = Path(folder).resolve()
            try:
                made = await asyncio.to_thread(self.make)
            except Exception as error:
                self.made.set_exception(error)
                return
            async with made.router.lifespan_context(made):
                self.made.set_result(made)
                while True:
                    await asyncio.sleep(PERIOD)
                    self.sweep()

    def make(self) -> FastAPI:
        os.environ["GRADIO_TEMP_DIR"] = str(self.folder)
        from serving.web.page import application

        async def made() -> FastAPI:
            return application(self.service)

        return asyncio.run(made())  # where no loop runs Gradio opens one, which nobody closes

    def sweep(self) -> None:
        uploads.sweep(self.folder, self.service.settings.bodies * MEBIBYTE)
