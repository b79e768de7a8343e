"""All of it together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from serving.bundle import Bundle
from serving.server import documentation, protocol, refusals, routes
from serving.server.limits import Limits
from serving.server.measures import Counted
from serving.server.service import Service
from serving.server.settings import Settings
from serving.web import mounting


def create(bundle: Bundle, settings: Settings) -> FastAPI:
    """The application that answers by a bundle."""
    service = Service(bundle, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(title="foldstack", version=service.version, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.include_router(routes.router(service))
    app.include_router(routes.watching(service))
    app.include_router(protocol.router(service))
    documentation.add(app)
    refusals.add(app)
    if settings.web:
        mounting.mount(app, service)

    app.add_middleware(Limits, settings=settings, room=service.batcher.room)
    app.add_middleware(Counted, measures=service.measures)
    return app
