"""Runs all of it against a server of its own and prints what came of it."""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.abuse import cases
from benchmarks.abuse.cases import Case
from benchmarks.results import docstring
from benchmarks.serving import servers
from benchmarks.serving.__main__ import asked, pictures
from benchmarks.serving.client import Connection, Seen, posted
from benchmarks.serving.servers import Server, started
from stages.running.errors import UserError
from stages.showing import machine
from stages.showing.command import command

AT_ONCE, SLOW = 16, 50
SHARE = 1.1
"""Memory afterwards, of that before."""
LIMIT = 60.0
"""Seconds in which every connection is to end."""
CLOSED, LATE = "closed", "open for a minute"


async def sent(case: Case, port: int) -> str:
    """The status that came; CLOSED or LATE where none did. A 503 without Retry-After is `503!`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b""
    try:
        async with asyncio.timeout(LIMIT):
            with suppress(OSError):
                writer.write(case.request)  # buffered: what the server closes early is dropped
                head = await reader.read(65536)
                while len(head) < 65536 and (more := await reader.read(65536)):
                    head += more
    except TimeoutError:
        return LATE
    finally:
        writer.transport.abort()
    status = head[9:12].decode("latin-1") if head.startswith(b"HTTP/1.") else CLOSED
    return "503!" if status == "503" and b"retry-after" not in head.lower() else status


def right(case: Case, status: str) -> bool:
    if status in (CLOSED, LATE):
        return status == CLOSED and case.closed
    return status[0] == "4" or status == "503" or (status[0] == "2" and case.harmless)


async def run(given: Sequence[Case], port: int) -> list[tuple[Case, str]]:
    """Send all, so many at once."""
    statuses: list[str] = []
    for start in range(0, len(given), AT_ONCE):
        statuses += await asyncio.gather(*(sent(case, port) for case in given[start : start + AT_ONCE]))
    return list(zip(given, statuses, strict=True))


async def slowly(port: int, content: bytes, timed: int) -> tuple[Seen, Seen]:
    """What a normal client meets alone, and what beside connections that send a byte a second."""
    request, stop = posted(content, "localhost", "/predict"), asyncio.Event()
    connection, seen = Connection("127.0.0.1", port), (Seen(), Seen())

    async def slow() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(len(request) - 1):
            with suppress(OSError, TimeoutError):
                writer.write(request[number : number + 1] if number else request[:200])
                await asyncio.wait_for(stop.wait(), 1.0)
            if stop.is_set():
                break
        writer.transport.abort()

    tasks: list[asyncio.Task[None]] = []
    for one in seen:
        for _ in range(timed):
            await connection.ask(request, one, time.perf_counter())
            await asyncio.sleep(0.02)
        if not tasks:
            tasks = [asyncio.create_task(slow()) for _ in range(SLOW)]
            await asyncio.sleep(3)
    stop.set()
    await asyncio.gather(*tasks)
    return seen


def generated(program: Path, server: Server, examples: int, folder: Path) -> str:
    """The last lines of schemathesis, which knows the OpenAPI document alone and leaves files in the folder."""
    words = ["run", server.url("/openapi.json"), "--checks", "not_a_server_error", "--seed", "0", "--no-color"]
    words += ["--max-examples", str(examples)]
    done = subprocess.run(
        [program.absolute(), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
    )
    return f"`schemathesis {' '.join(words)}`: {done.returncode}\n\n{done.stdout[-3000:]}"


def told(found: Sequence[tuple[Case, str]]) -> list[str]:
    """Prints statuses by name; returns what is wrong."""
    counts, wrong = Counter[tuple[str, str]](), []
    for case, status in found:
        counts[case.name, status] += 1
        if not right(case, status):
            wrong.append(f"{case.name}: {status}: {case.request[:300]!r}")
    for (name, status), n in sorted(counts.items()):
        print(f"{name}: {status}: {n:,}")
    return wrong


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.abuse", description=docstring("abuse"))
    parser.add_argument("bundle", nargs="?", type=Path, default=Path("models/bundle"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="a folder that `split` wrote")
    parser.add_argument("--schemathesis", type=Path, metavar="PROGRAM", help="its command")
    for name, value in {"requests": 5000, "seed": 0, "warm": 500, "timed": 200, "examples": 200}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    words = servers.ours(given.bundle, "--patience", "10")
    with tempfile.TemporaryDirectory() as name, started(words, "/readyz", servers.environment()) as server:
        folder = Path(name)
        pictures(folder, 50, given.data)
        asked(server, folder, requests=given.warm)
        before = server.memory()
        print(f"{machine.description()}; {given.bundle}; {given.requests:,} requests, seed {given.seed}\n")
        wrong = told(asyncio.run(run(list(cases.some(given.requests, given.seed)), server.port)))
        print(f"memory {server.memory():.0f} MB")
        wrong += told(asyncio.run(run(list(cases.large()), server.port)))
        print(f"memory {server.memory():.0f} MB")
        alone, beside = asyncio.run(slowly(server.port, next(folder.glob("*.png")).read_bytes(), given.timed))
        print(f"\nnormal client alone: {alone.told(0.0)}\nbeside {SLOW} slow ones: {beside.told(0.0)}")
        if given.schemathesis:
            print(generated(given.schemathesis, server, given.examples, folder))
        asked(server, folder, clients=8, requests=given.warm)
        after, failures = server.memory(), server.failures()
    print(f"\nmemory before {before:.0f} MB, after {after:.0f} MB ({after / before:.3f}); failures {failures}")
    wrong += [f"{status}: {n:.0f} times" for status, n in failures.items()]
    wrong += [f"memory grew by {after / before - 1:.0%}"] if after > SHARE * before else []
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        raise UserError(f"{len(wrong)} cases are not as they should be")


if __name__ == "__main__":
    main()
