"""How long a connection may take over its headers, how long they may be, and how many may wait: uvicorn bounds none."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS = 1 << 16
"""Bytes."""
AHEAD = 32
"""Requests that a connection may send before the first is answered."""


def protocol(patience: float) -> type[HttpToolsProtocol]:
    """The protocol for uvicorn. A connection is closed that sends no whole headers within `patience` seconds."""

    class Bounded(HttpToolsProtocol):
        timer: asyncio.TimerHandle | None = None
        came = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.await_headers()

        def await_headers(self) -> None:
            self.stop()
            self.came, self.timer = 0, self.loop.call_later(patience, self.transport.close)

        def stop(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.await_headers()

        def on_headers_complete(self) -> None:
            self.stop()
            if len(self.pipeline) >= AHEAD:
                raise ValueError(f"more than {AHEAD} requests ahead")  # is answered with 400
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            if self.timer is not None and self.came > HEADERS:
                self.transport.close()
                return
            self.came += len(data)
            super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop()
            super().connection_lost(exc)

    return Bounded
