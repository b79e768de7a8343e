"""Servers as processes on this machine, and what they say of themselves."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.processes import tree
from stages.running.errors import UserError

START = 120.0
"""Seconds in which a server has to answer."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@dataclass(frozen=True)
class Server:
    process: psutil.Process
    port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def busy(self) -> float:
        """Seconds of processors that it and its descendants took."""
        times = [one.cpu_times() for one in tree(self.process)]
        return sum(one.user + one.system for one in times)

    def memory(self) -> float:
        """MB, resident."""
        return sum(one.memory_info().rss for one in tree(self.process)) / 1e6

    def samples(self) -> list[Any]:
        with urllib.request.urlopen(self.url("/metrics")) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return [sample for family in families for sample in family.samples]

    def measured(self) -> Counter[str]:
        """What /metrics says, the labels of a name added up."""
        found: Counter[str] = Counter()
        for sample in self.samples():
            found[sample.name.removeprefix("foldstack_")] += sample.value  # type: ignore[assignment]
        return found

    def failures(self) -> Counter[str]:
        """Answers by status, of 500 and above but for 503."""
        found: Counter[str] = Counter()
        for sample in self.samples():
            status = sample.labels.get("status", "")
            if sample.name.endswith("_requests_total") and status.startswith("5") and status != "503":
                found[status] += sample.value  # type: ignore[assignment]
        return found


def ours(bundle: Path, *flags: str) -> list[str]:
    """The command of this server, but for its port."""
    return [sys.executable, "-m", "serving.server", str(bundle), "--no-web", *flags]


@contextmanager
def started(words: Sequence[str], ready: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server that answers at the path `ready`; ended afterwards. Raises UserError where it does not start."""
    port = free_port()
    with subprocess.Popen([*words, "--port", str(port)], stdout=subprocess.DEVNULL, env=environment) as process:
        server = Server(psutil.Process(process.pid), port)
        try:
            wait(process, server.url(ready))
            yield server
        finally:
            left = list(tree(server.process))
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(40)
            for one in left:  # what a server left behind, too
                with suppress(psutil.NoSuchProcess):
                    one.kill()


def wait(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=START) as answer:
            answer.read()
            return
        time.sleep(0.1)
    raise UserError(f"{' '.join(map(str, process.args))} did not answer at {url}")  # type: ignore[arg-type]


def environment() -> dict[str, str]:
    """Without a limit of threads, which is the servers' own business."""
    return {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
