"""Clients of a server, in a process of their own, so that what they cost is not the server's.

Written on bare connections: for a request httpx takes 4 ms of a processor, this 0.06, and the server less than 1.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvloop

BOUNDARY = "boundary-of-the-form"
LOST = "lost"
"""In the place of a status: the connection ended without an answer."""
QUANTILES = (50, 95, 99)
CONNECTIONS = 1000
"""At most, of requests that come whatever becomes of those before; further ones wait for one of them."""


def posted(content: bytes, host: str, path: str, name: str = "image") -> bytes:
    """A whole request, as a form with one file of that name."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n'
    body = f"{head}Content-Type: image/png\r\n\r\n".encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Seen:
    """What came of all requests."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Of those that were answered with 200."""
    blunt: int = 0
    """Answers of 503 that do not say when to try again."""

    def add(self, head: bytes, seconds: float) -> None:
        status = head[9:12].decode()
        self.statuses[status] += 1
        if status == "200":
            self.seconds.append(seconds)
        self.blunt += status == "503" and b"retry-after:" not in head.lower()

    def told(self, took: float) -> dict[str, Any]:
        """As JSON; `took`: seconds of all together."""
        quantiles = np.percentile(self.seconds, QUANTILES) if self.seconds else [np.nan] * len(QUANTILES)
        return {
            "statuses": dict(self.statuses),
            "blunt": self.blunt,
            "seconds": took,
            "mean": float(np.mean(self.seconds)) if self.seconds else np.nan,
            **{f"p{number}": float(value) for number, value in zip(QUANTILES, quantiles, strict=True)},
        }


class Connection:
    """One that stays open from request to request, as long as the server lets it."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, seen: Seen, start: float) -> None:
        """Send it and read the answer; `start`: when it was to be sent."""
        try:
            if self.streams is not None and self.streams[0].at_eof():  # a server closes what was idle for long
                self.close()
            reader, writer = self.streams = self.streams or await asyncio.open_connection(self.host, self.port)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
        except (OSError, asyncio.IncompleteReadError):
            seen.statuses[LOST] += 1
            self.close()
            return
        seen.add(head, time.perf_counter() - start)
        if b"connection: close" in head.lower():
            self.close()

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def closed(connections: Sequence[Connection], requests: Sequence[bytes], total: int) -> Seen:
    """So many clients, each of which sends its next request when the last one was answered."""
    seen, numbers = Seen(), iter(range(total))

    async def one(connection: Connection) -> None:
        for number in numbers:
            await connection.ask(requests[number % len(requests)], seen, time.perf_counter())

    await asyncio.gather(*map(one, connections))
    return seen


async def opened(host: str, port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Seen:
    """So many requests per second, whatever becomes of those before; timed from when each was due."""
    seen, tasks, start = Seen(), set[asyncio.Task[None]](), time.perf_counter()
    idle: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(Connection(host, port))

    async def one(request: bytes, due: float) -> None:
        connection = await idle.get()
        await connection.ask(request, seen, due)
        idle.put_nowait(connection)

    for number, request in zip(range(round(rate * seconds)), cycle(requests), strict=False):
        due = start + number / rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        task = asyncio.create_task(one(request, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if number % 16 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    return seen


async def run(given: argparse.Namespace) -> dict[str, Any]:
    url = urlsplit(given.url)
    host, port = url.hostname or "127.0.0.1", url.port or 80
    files = sorted(given.folder.glob("*.png"))
    requests = [posted(file.read_bytes(), url.netloc, url.path, given.name) for file in files]
    start = time.perf_counter()
    if given.rate:
        seen = await opened(host, port, requests, given.rate, given.seconds)
    else:
        seen = await closed([Connection(host, port) for _ in range(given.clients)], requests, given.requests)
    return seen.told(time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.client", description=__doc__)
    parser.add_argument("url", help="with the path")
    parser.add_argument("folder", type=Path, help="of PNG files, sent in turn")
    parser.add_argument("--name", default="image", help="of the file in the form")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=2000, help="of all clients")
    parser.add_argument("--rate", type=float, default=0.0, help="requests per second, in the place of clients")
    parser.add_argument("--seconds", type=float, default=20.0, help="in which they are sent at that rate")
    print(json.dumps(uvloop.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
