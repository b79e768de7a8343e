"""What something was run on: processor, memory, GPU, versions and commit."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path


def description() -> str:
    """One line, which also names the machine's part of a section in docs/benchmarks.md."""
    import loky  # with psutil, which those that only read costs do without

    cores, memory = loky.cpu_count(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = gpus()
    graphics = f"{len(names)} x {names[0]}" if names else "no GPU"
    return f"{cores} cores of {processor()}, {memory:.0f} GiB of memory, {graphics}"


def processor() -> str:
    """The model's name."""
    models = processors()
    return models[0] if models else platform.processor() or platform.machine()


def processors() -> list[str]:
    """The model's name, once for every core."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return [line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")]


def busy(seconds: float = 0.2) -> float:
    """How many of the cores that this process may use others take meanwhile, for it sleeps: 0 to all of them."""
    before = ticks()
    time.sleep(seconds)
    after = ticks()
    spent = [(after[core][0] - idle, after[core][1] - every) for core, (idle, every) in before.items() if core in after]
    return sum(1 - idle / every for idle, every in spent if every > 0)


def ticks(path: Path = Path("/proc/stat")) -> dict[int, tuple[int, int]]:
    """Of each of these cores since it started: those in which it had nothing to do, and all."""
    lines = path.read_text().splitlines() if path.exists() else []
    cores = {
        int(words[0][3:]): list(map(int, words[1:9])) for line in lines if (words := line.split()) and is_core(words[0])
    }
    return {core: (n[3] + n[4], sum(n)) for core, n in cores.items() if core in os.sched_getaffinity(0)}


def is_core(word: str) -> bool:
    return word.startswith("cpu") and word[3:].isdecimal()


def gpus() -> list[str]:
    """The names of the NVIDIA GPUs."""
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []


def device() -> str:
    """The GPU's name, else the processor's."""
    models = processors()
    return (gpus() or [f"{len(models)} cores of {models[0]}" if models else platform.processor()])[0]


def versions(packages: Iterable[str]) -> str:
    """Python and those of the packages that are installed, with their versions."""
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def when(packages: Iterable[str]) -> str:
    """Today's date, and what was measured: the commit and the versions."""
    return f"{datetime.date.today()}, commit {commit()}; {versions(packages)}"


def commit() -> str:
    """That of the code, marked where its files have changed since; those of the job always have. Empty without Git."""
    try:
        answers = [
            subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (["describe", "--always"], ["status", "--porcelain", "stages", "benchmarks"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answers[0] + ("-dirty" if answers[1] else "")
