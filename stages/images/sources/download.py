"""One file from the network into the cache folder: resumed, retried, checked, whole or not there."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
import urllib3

from stages.images.space import space
from stages.running import atomic
from stages.running.errors import UserError
from stages.showing.progress import bar

CHUNK = 1 << 18
TIMEOUT = (10, 60)
"""Seconds to connect, and without a byte."""
ATTEMPTS = 5
"""In a row without a single byte. One that brought some starts the count anew."""


class TemporaryError(Exception):
    """Worth another attempt."""


def cache_folder() -> Path:
    """Where downloads are kept: `$FOLDSTACK_CACHE`, else `foldstack` in the user's cache folder."""
    own, shared = os.environ.get("FOLDSTACK_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "foldstack"


def download(url: str, target: Path, md5: str, *, wait: float = 1.0, hint: str = "") -> Path:
    """The file behind `url` as `target`. Raises UserError where it cannot be had or is not the right one.

    Bytes gather in `<target>.part`, which an interrupted download leaves behind and the next one continues. `wait`:
    seconds before the second attempt, doubled with each. `hint` ends the message when the network fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with locked(target.with_name(f"{target.name}.lock")):
        if target.exists() and checksum(target) == md5:
            return target
        fetch(url, part, wait, hint)
        came = checksum(part)
        if came != md5:
            part.unlink()
            raise UserError(f"{url}: the md5 checksum is {came}, expected {md5}; nothing was kept, run again")
        atomic.move(part, target)
    return target


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Two runs at once wait for each other instead of writing into one file."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def fetch(url: str, part: Path, wait: float, hint: str) -> None:
    """Attempt after attempt, each from where the last one ended, until the server has no more to give."""
    failures = 0
    while True:
        before = length(part)
        try:
            return receive(url, part)
        except TemporaryError as error:
            failures = 1 if length(part) > before else failures + 1
            if failures >= ATTEMPTS:
                raise UserError(f"{url} cannot be downloaded: {error}{hint}") from None
        time.sleep(wait * 2 ** (failures - 1))


def receive(url: str, part: Path) -> None:
    """One attempt. Asks for the bytes as they are: some servers label an archive as compressed content."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={length(part)}-"} if length(part) else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            save(response, url, part)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise TemporaryError(plain(error)) from None


def save(response: requests.Response, url: str, part: Path) -> None:
    status = response.status_code
    if status == requests.codes.requested_range_not_satisfiable:
        return  # nothing is left to send: the checksum tells whether what is there is the file
    if status == requests.codes.too_many_requests or status >= 500:
        raise TemporaryError(f"the server answered {status} {response.reason}")
    if status not in (requests.codes.ok, requests.codes.partial_content):
        raise UserError(f"{url} cannot be downloaded: the server answered {status} {response.reason}")
    begin = length(part) if status == requests.codes.partial_content else 0
    left = int(response.headers.get("Content-Length", 0))
    with (
        space(part.parent, left),
        part.open("ab" if begin else "wb") as file,
        bar(begin + left, "bytes", f"download {url}") as progress,
    ):
        progress.update(begin)
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            file.write(chunk)
            progress.update(len(chunk))


def length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def plain(error: Exception) -> str:
    """The cause in one line; requests wraps it twice."""
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    cause = getattr(inner, "reason", None) or inner
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}"
