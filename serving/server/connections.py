"""What uvicorn leaves unbounded: time and length of headers, length of trailers, requests that wait on a connection."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS = 1 << 16
"""Bytes."""
AHEAD = 32
"""Requests that a connection may send before the first is answered."""


class Bounded(HttpToolsProtocol):
    """Closes a connection that sends no whole headers in time, or more than HEADERS bytes of what is no body."""

    patience: float
    """Seconds."""
    timer: asyncio.TimerHandle | None = None
    came = 0
    """Bytes since the last of a body."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.await_headers()

    def await_headers(self) -> None:
        self.stop()
        self.came, self.timer = 0, self.loop.call_later(self.patience, self.transport.close)

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

    def on_body(self, body: bytes) -> None:
        self.came = 0
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        if self.came > HEADERS:
            self.transport.close()
            return
        self.came += len(data)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop()
        super().connection_lost(exc)


def protocol(seconds: float) -> type[Bounded]:
    """The protocol for uvicorn, with this patience."""

    class Protocol(Bounded):
        patience = seconds

    return Protocol
