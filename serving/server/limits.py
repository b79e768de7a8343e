"""What a request may cost before anything reads it: its bytes counted while they arrive, the time they take, its rate.

A form is parsed before any dependency of a route runs, and Starlette has no bound of its own; so this is an ASGI
application around the other. A body is gathered here whole: who sends slowly holds nothing but its own bytes.
"""

import asyncio
import math
import time
from collections.abc import Callable
from http import HTTPStatus

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from serving.server.asgi import Application, Message, Receive, Scope, Send
from serving.server.refusals import RefusedError, response
from serving.server.settings import MEBIBYTE, Settings

FREE = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
"""What is asked by machines that watch over the server, as often as they like."""
PARTS = ("/assets/", "/static/")
"""What a browser fetches by the dozen to show the page once."""
LINGER = 2.0
"""Seconds in which the rest of a refused body is thrown away: who still sends does not read that it was refused."""


class Limits:
    def __init__(self, app: Application, settings: Settings, room: Callable[[int], None]) -> None:
        """`room` raises RefusedError where so many images more cannot wait."""
        self.app, self.settings, self.room = app, settings, room
        self.body, self.bodies = settings.body * MEBIBYTE, settings.bodies * MEBIBYTE
        self.held = 0
        self.rate = parse(settings.rate) if settings.rate else None
        self.limiter = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = bytearray()
        try:
            try:
                await self.arrive(scope, receive, body)
            except RefusedError as refusal:
                await refuse(refusal, scope, receive, send)
            else:
                await self.pass_on(scope, replayed(bytes(body), receive), send)
        finally:
            self.held -= len(body)

    async def pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What finds the queue full is refused before anything reads it, which is when time is short."""
        try:
            if scope["method"] == "POST":
                self.room(1)
        except RefusedError as refusal:
            await response(refusal)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def arrive(self, scope: Scope, receive: Receive, body: bytearray) -> None:
        """Fill `body`. Raises RefusedError."""
        self.count(scope)
        headers = dict(scope["headers"])
        if coding := headers.get(b"content-encoding", b"").decode("latin-1"):
            message = f"the body is coded as {coding[:20]}; expected none, since a small one may become a large one"
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)
        if (announced := number(headers.get(b"content-length", b"0"))) > self.body:
            raise self.too_large(announced)
        try:
            async with asyncio.timeout(self.settings.patience):
                while (message := await receive())["type"] == "http.request":
                    self.take(message.get("body", b""), body)
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            seconds = f"{self.settings.patience:g} s"
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, f"the body took more than {seconds} to arrive") from None

    def take(self, part: bytes, body: bytearray) -> None:
        self.held += len(part)
        body += part
        if len(body) > self.body:
            raise self.too_large(len(body))
        if self.held > self.bodies:
            why = f"busy: requests hold {self.settings.bodies} MiB; try again later"
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, why, retry_after=1)

    def too_large(self, came: int) -> RefusedError:
        message = f"the body has {came:,} bytes or more; expected at most {self.body:,}"
        return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)

    def count(self, scope: Scope) -> None:
        if self.rate is None or scope["path"] in FREE or scope["path"].startswith(PARTS):
            return
        address = (scope.get("client") or ["unknown"])[0]
        if not self.limiter.hit(self.rate, address):
            reset = self.limiter.get_window_stats(self.rate, address).reset_time
            message = f"more than {self.settings.rate} requests of {address}"
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS, message, retry_after=max(1, math.ceil(reset - time.time()))
            )


def number(digits: bytes) -> int:
    """What a header says, 0 where it is no number; Python refuses to read thousands of digits, were they zeros."""
    return int(digits.lstrip(b"0")[:20] or b"0") if digits.isdigit() else 0


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands the body over at once."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive_next() -> Message:
        return next(messages, None) or await receive()

    return receive_next


async def refuse(refusal: RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, then close the connection once what still comes has been thrown away."""

    async def lingering(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif message["type"] == "http.response.body":
            await send({**message, "more_body": True})
            await discard(receive)
        await send(message if message["type"] == "http.response.start" else {"type": "http.response.body"})

    await response(refusal)(scope, receive, lingering)


async def discard(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    except TimeoutError:
        return
