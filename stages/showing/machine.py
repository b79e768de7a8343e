"""What something was run on: processor, memory, GPU, versions and commit."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
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
