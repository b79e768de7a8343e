"""Work in a process of its own, and the memory that it and its descendants take."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import psutil

INTERVAL = 0.05
"""Seconds between two looks at the memory."""


def answer(
    module: str, *arguments: object, timeout: float | None = None, environment: Mapping[str, str] | None = None
) -> Any:
    """What `python -m <module> <arguments>` prints last, read as JSON. Raises what subprocess.run does."""
    done = subprocess.run(
        command(module, arguments), stdout=subprocess.PIPE, text=True, check=True, timeout=timeout, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def command(module: str, arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def peak_memory(words: Sequence[str]) -> float:
    """GB: the most that a command and its descendants hold at one time, looked at every 50 ms.

    Added up is the proportional set size, in which a page that several processes share counts once in all. Pages of
    the kernel's file cache that no process has mapped do not count. Raises CalledProcessError for a command that fails.
    """
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        peak, parent = 0, psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, sum(held(one) for one in tree(parent)))
            time.sleep(INTERVAL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return peak / 1e9


def tree(parent: psutil.Process) -> Iterator[psutil.Process]:
    """A process and its descendants at this moment."""
    yield parent
    with suppress(psutil.NoSuchProcess):
        yield from parent.children(recursive=True)


def held(process: psutil.Process) -> int:
    """Bytes; none of a process that has just ended."""
    try:
        return process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
