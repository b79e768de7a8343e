"""A download is whole or not there, and goes on where it was cut."""

import hashlib
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stages.images.sources.download import ATTEMPTS, cache_folder, download
from stages.running import atomic
from stages.running.errors import UserError

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT with ranges. `plan` holds what happens to the next requests: a status, or bytes before the cut."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[tuple[str, int]] = []
        self.ranges: list[str | None] = []
        self.resumes = True
        self.url = f"http://127.0.0.1:{self.server_port}/archive.tar.gz"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests, and no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
        kind, value = self.server.plan.pop(0) if self.server.plan else ("whole", 0)
        if kind == "status":
            self.send_response(value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin = self.begin()
        if begin >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(CONTENT) - begin))
        self.send_header("Content-Encoding", "x-gzip")  # some servers say this of an archive; it is stored as it is
        self.end_headers()
        self.wfile.write(CONTENT[begin : begin + value] if kind == "cut" else CONTENT[begin:])

    def begin(self) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        return int(found[1]) if found and self.server.resumes else 0

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "archive.tar.gz"


def test_the_whole_file_arrives_once(server: Server, target: Path) -> None:
    assert download(server.url, target, MD5, wait=0).read_bytes() == CONTENT
    download(server.url, target, MD5, wait=0)
    assert server.ranges == [None]
    assert not target.with_name("archive.tar.gz.part").exists()


def test_a_cut_connection_is_resumed_where_it_broke(server: Server, target: Path) -> None:
    server.plan = [("cut", 300_000), ("cut", 200_000)]
    download(server.url, target, MD5, wait=0)
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert target.read_bytes() == CONTENT


def test_more_cuts_than_attempts_are_survived_while_bytes_come(server: Server, target: Path) -> None:
    server.plan = [("cut", 1000)] * (2 * ATTEMPTS)
    assert download(server.url, target, MD5, wait=0).read_bytes() == CONTENT


def test_what_an_interrupted_run_left_is_taken_up(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("archive.tar.gz.part").write_bytes(CONTENT[:1000])
    download(server.url, target, MD5, wait=0)
    assert server.ranges == ["bytes=1000-"]


def test_a_complete_part_needs_no_more_bytes(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("archive.tar.gz.part").write_bytes(CONTENT)
    assert download(server.url, target, MD5, wait=0).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(server: Server, target: Path) -> None:
    server.resumes, server.plan = False, [("cut", 300_000)]
    assert download(server.url, target, MD5, wait=0).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int, server: Server, target: Path) -> None:
    server.plan = [("status", status)] * (ATTEMPTS - 1)
    download(server.url, target, MD5, wait=0)
    assert len(server.ranges) == ATTEMPTS


def test_a_server_that_stays_busy_is_given_up(server: Server, target: Path) -> None:
    server.plan = [("status", 503)] * ATTEMPTS
    with pytest.raises(UserError, match="503"):
        download(server.url, target, MD5, wait=0)
    assert not target.exists()


def test_a_missing_file_is_not_asked_for_twice(server: Server, target: Path) -> None:
    server.plan = [("status", 404)]
    with pytest.raises(UserError, match="404"):
        download(server.url, target, MD5, wait=0)
    assert len(server.ranges) == 1


def test_a_wrong_checksum_leaves_nothing(server: Server, target: Path) -> None:
    with pytest.raises(UserError, match=f"{MD5}.*expected {'0' * 32}"):
        download(server.url, target, "0" * 32, wait=0)
    assert [path.name for path in target.parent.iterdir()] == ["archive.tar.gz.lock"]


def test_what_arrived_is_on_the_disk(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(atomic, "flush", lambda path: flushed.append(path.name))
    download(server.url, target, MD5, wait=0)
    assert flushed == ["archive.tar.gz.part", "cache"]


def test_a_damaged_file_in_the_cache_is_replaced(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    assert download(server.url, target, MD5, wait=0).read_bytes() == CONTENT


def test_no_network_is_one_line_with_the_way_out(target: Path) -> None:
    with pytest.raises(UserError) as caught:
        download("http://127.0.0.1:1/archive.tar.gz", target, MD5, wait=0, hint="; set data.path")
    assert str(caught.value).startswith("http://127.0.0.1:1/archive.tar.gz cannot be downloaded: NewConnectionError")
    assert str(caught.value).endswith("; set data.path")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_seen_before_the_first_byte(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage("/")._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(UserError, match=r"cache: the disk has 0\.00 GB left"):
        download(server.url, target, MD5, wait=0)
    assert not target.exists()


def test_two_downloads_at_once_fetch_once(server: Server, target: Path) -> None:
    threads = [threading.Thread(target=download, args=(server.url, target, MD5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert len(server.ranges) == 1


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOLDSTACK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert cache_folder() == Path("/shared/foldstack")
    monkeypatch.setenv("FOLDSTACK_CACHE", "/own")
    assert cache_folder() == Path("/own")
    monkeypatch.delenv("FOLDSTACK_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "foldstack"
