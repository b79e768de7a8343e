"""What cost the server memory or an answer of 500 once: found by `python -m benchmarks.abuse`."""

import socket
import sys
import threading
import time
from contextlib import suppress

import pytest
import uvicorn
from fastapi.testclient import TestClient

from benchmarks.abuse import cases
from serving import Bundle, check
from serving.server.app import create
from serving.server.connections import AHEAD, protocol
from serving.server.settings import Settings
from stages.running.errors import UserError
from tests import bundles


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return bundles.made(tmp_path_factory.mktemp("made"))


def created(repository):
    return create(Bundle.load(repository / "models/bundle", threads=1), Settings(web=False, threads=1))


@pytest.fixture(scope="module")
def app(repository):
    return created(repository)


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def port(repository):
    """Of a real server on loopback."""
    config = uvicorn.Config(created(repository), port=0, http=protocol(5.0), log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def answered(port, request):
    """All that comes until the connection is closed."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, suppress(ConnectionError):
        connection.sendall(request)
        while part := connection.recv(65536):
            found += part
    return found


@pytest.mark.parametrize("path", ["/predict", "/v2/models/foldstack/infer"])
def test_a_length_of_thousands_of_digits_is_no_failure(client, path):
    digits = "0" * 5000
    headers = {"content-length": digits, "inference-header-content-length": digits, "content-type": "application/json"}
    assert client.post(path, content=b"{}", headers=headers).status_code == 400


@pytest.mark.parametrize("charset", ["undefined", "idna", "unicode_escape", "utf-7", "hex"])
def test_a_form_in_any_charset_is_read_or_refused(client, charset):
    head = '--b\r\nContent-Disposition: form-data; name="images"; filename="\\ud800 +2AA-"\r\n\r\n'
    headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
    answer = client.post("/predict/batch", content=f"{head}x\r\n--b--\r\n".encode(), headers=headers)
    assert answer.status_code in (200, 400)


def test_a_failure_is_counted_as_one(client, app, monkeypatch):
    monkeypatch.setattr(app.state.service, "classify", None)
    assert client.post("/predict", files={"image": b"x"}).status_code == 500
    assert 'foldstack_requests_total{route="/predict",status="500"} 1.0' in client.get("/metrics").text


def test_the_openapi_document_defines_all_that_it_names(client):
    document = client.get("/openapi.json").json()

    def names(node):
        if isinstance(node, dict):
            yield from ([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            yield from names(child)

    for name in set(names(document)):
        node = document
        for part in name.removeprefix("#/").split("/"):
            node = node[part.replace("~1", "/")]


def test_no_family_of_bad_requests_makes_the_server_fail(port):
    heads = [answered(port, case.request)[:12] for case in cases.some(2 * len(cases.FAMILIES), seed=0)]
    text = answered(port, cases.http("GET", "/healthz"))
    assert not any(head.startswith(b"HTTP/1.1 5") for head in heads), heads
    assert any(head.startswith(b"HTTP/1.1 4") for head in heads), heads
    assert b"HTTP/1.1 200" in text


def test_requests_that_nobody_waits_for_do_not_pile_up(port):
    request = cases.http("GET", "/healthz", connection="keep-alive")
    few, many = (answered(port, request * n + cases.http("GET", "/healthz")) for n in (AHEAD // 2, 100 * AHEAD))
    assert few.count(b'"alive"') == AHEAD // 2 + 1
    assert many.count(b'"alive"') < 50 * AHEAD


def test_a_full_queue_is_told_before_a_form_is_read(app, client):
    with app.state.service.batcher.places(128):
        busy = client.post("/predict", content=b"no form", headers={"content-type": "multipart/form-data"})
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")


def test_check_asks_a_server_and_says_where_it_differs(port, repository, monkeypatch, capsys):
    url = f"http://127.0.0.1:{port}"
    monkeypatch.chdir(repository)
    monkeypatch.setattr(sys, "argv", ["check", "models/bundle", "--url", url])
    check.main()
    assert f"ok    {url}, 60 images" in capsys.readouterr().out
    of_the_stack = check.of_the_stack
    monkeypatch.setattr(check, "of_the_stack", lambda *given: of_the_stack(*given)[::-1])
    with pytest.raises(SystemExit, match=f"{url}: not what was scored"):
        check.main()


def test_check_says_what_it_expects_where_no_server_is():
    with pytest.raises(UserError, match="expected a server"):
        check.served("http://127.0.0.1:9", check.np.zeros((1, 8, 8, 3), "uint8"), ["a"])
