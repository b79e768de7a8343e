"""The page answers as the stack was judged, keeps no upload for long, and lets nobody at anything else of Gradio."""

import base64
import csv
import io
import json
import re
import socket
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from serving import Bundle
from serving.server import answers
from serving.server.app import create
from serving.server.refusals import RefusedError
from serving.server.settings import Settings
from serving.web import mounting, uploads, views
from stages.bundling import examples, parity
from stages.images.dataset import Dataset
from stages.stacking.judging.uncertainty import shares
from tests import bundles
from tests.test_bundle import scored


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return bundles.made(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def resolved():
    """The names of hosts that were looked up while the page was made and asked."""
    names, real = [], socket.getaddrinfo

    def noted(host, *rest, **options):
        names.append(host)
        return real(host, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", noted)
        yield names


def application(repository, **settings):
    folder = repository / "models/bundle"
    return create(Bundle.load(folder, threads=1), Settings(bundle=folder, body=1, **settings))


@pytest.fixture(scope="module")
def client(repository, resolved):
    with TestClient(application(repository)) as client:
        yield client


@pytest.fixture(scope="module")
def page(client):
    """The ASGI application that lets requests through to Gradio."""
    return of(client.app)


def of(app):
    return next(route.app for route in app.routes if getattr(route, "path", "") == mounting.UPLOAD)


@pytest.fixture(scope="module")
def files(repository):
    """The images of the test set as PNG, by name, in order."""
    data, found = Dataset.load(repository / "data"), {}
    for number, pixels in enumerate(data.take(data.test_rows)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        found[f"{number}.png"] = file.getvalue()
    return found


def upload(client, files):
    """Where they are now."""
    return client.post(mounting.UPLOAD, files=[("files", one) for one in files.items()])


def asked(client, event, data):
    """What the page shows first of what becomes of an event."""
    number, *_ = [
        each["id"]
        for each in client.get("/config").json()["dependencies"]
        if any(t[1] == event for t in each["targets"])
    ]
    body = {"fn_index": number, "session_hash": uuid.uuid4().hex, **data}
    joined = client.post(mounting.JOIN, json=body)
    if joined.status_code != 200:
        return joined
    said = client.get(f"/gradio_api/queue/data?session_hash={body['session_hash']}").text
    messages = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: ")]
    (done,) = [each for each in messages if each["msg"] == "process_completed"]
    assert done["success"], done
    return done["output"]["data"][0]


def given(path):
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def one(client, content):
    (path,) = upload(client, {"a.png": content}).json()
    return asked(client, "change", {"data": [given(path)]})


def several(client, files):
    return asked(client, "upload", {"data": [[given(path) for path in upload(client, files).json()]]})


def test_an_upload_is_answered_as_evaluate_judged_it_right_or_wrong(client, repository, files):
    said = several(client, files)
    table = base64.b64decode(re.search(r"data:text/csv;charset=utf-8;base64,([^\"]+)", said)[1])
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    labels, p = scored(repository)
    assert [row["path"] for row in rows] == list(files)
    assert [row["label"] for row in rows] == labels
    assert labels != [bundles.CLASSES[label] for label in truth(repository)]
    found = np.array([[float(row[f"p.{name}"]) for name in bundles.CLASSES] for row in rows])
    np.testing.assert_allclose(found, p, atol=parity.TOLERANCE)


def truth(repository):
    data = Dataset.load(repository / "data")
    return data.labels[data.test_rows]


def test_one_image_is_answered_with_votes_and_the_conformal_set_in_words(client, repository, files):
    labels, _ = scored(repository)
    said = one(client, files["0.png"])
    assert f"<h2>{labels[0]}</h2>" in said
    assert len(re.findall('class="fs-bar"', said)) == 3
    assert all(f">{name}</th>" in said for name in bundles.SEEDS)
    assert "right" in re.search(r"fs-set[^>]*>([^<]+)", said)[1]


def test_the_test_image_that_the_stack_gets_wrong_is_among_the_examples(client, repository):
    known = json.loads((repository / "models/bundle/manifest.json").read_text())["examples"]
    shown = asked(client, "click", {"data": [], "event_data": {"number": len(known) - 1}})
    said = asked(client, "change", {"data": [shown]})
    assert f"Wrong: in the test set this image is labelled {known[-1]['label']}." in said


def test_examples_are_of_many_classes_and_one_is_wrong():
    labels = np.arange(40) % 20
    said = np.where(np.isin(np.arange(40), (3, 30, 31)), 0, labels)
    assert examples.chosen(labels, said).tolist() == [0, 1, 2, 23, 4, 5, 6, 3]
    assert examples.chosen(labels[:3], labels[:3]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"no image", b"", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused_in_a_sentence(client, content):
    said = one(client, content)
    assert re.fullmatch(r'<p class="fs-refusal" role="alert">The image cannot be read: [^<]+\.</p>\s*', said)
    assert "Traceback" not in said


def test_names_of_files_are_shown_as_text(client):
    shown = views.batch(None, [Path("<b>.png")], [RefusedError(422, "<i>")])
    assert "&lt;b&gt;.png" in shown
    assert "&lt;i&gt;" in shown


def test_uploads_do_not_pile_up(client, page, monkeypatch):
    monkeypatch.setattr(uploads, "FILES", 5)
    for number in range(20):
        upload(client, {"a.png": bytes([number])})
    left = list(page.folder.rglob("*.png"))
    assert len(left) == len(list(page.folder.iterdir())) == 6  # the last came after the last look
    monkeypatch.setattr(uploads, "AGE", -1.0)
    page.sweep()
    assert not list(page.folder.iterdir())
    (path,) = upload(client, {"a.png": b"gone"}).json()
    page.sweep()
    assert "deleted since" in asked(client, "change", {"data": [given(path)]})


@pytest.mark.parametrize("path", ["/etc/hostname", "http://127.0.0.1:1/a.png", "{folder}/../../etc/hostname", 5])
def test_no_other_file_and_no_address_is_read(client, page, path):
    path = path.format(folder=page.folder) if isinstance(path, str) else path
    assert client.get(f"/gradio_api/file={path}").status_code == 404
    for data in ([given(path)], [[given(path)]], [{"deep": [given(path)]}]):
        assert asked(client, "change", {"data": data}).status_code == 404
    assert not list(page.folder.rglob("hostname"))


@pytest.mark.parametrize("path", ["info", "startup-events", "proxy=http://a.hf.space", "heartbeat/a", "call/a", "runs"])
def test_what_the_page_does_not_need_is_not_there(client, path):
    answer = client.get(f"/gradio_api/{path}")
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})


def test_the_api_keeps_its_routes(client):
    assert client.get("/predict").status_code == 405
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.get("/openapi.json").json()["info"]["title"] == "foldstack"


def test_more_than_a_request_may_have_is_refused(client):
    assert upload(client, {"a.png": bytes(1 << 20)}).status_code == 413
    paths = [given(path) for path in upload(client, {"a.png": bytes(600_000)}).json()]
    assert "expected at most 1 MiB" in asked(client, "upload", {"data": [paths * 2]})
    assert "expected at most 64" in asked(client, "upload", {"data": [paths * 65]})


def test_what_a_browser_finds_too_large_is_refused_in_the_same_words(client):
    """It counts by the bounds of the server, and sends no more than what it counted."""
    places = [one["props"] for one in client.get("/config").json()["components"] if one["type"] == "html"]
    assert [one["props"] for one in places if one["props"]] == [{"files": 64, "bytes": 1 << 20}] * 2

    def told(count, size):
        return asked(client, "input", {"data": [], "event_data": {"count": count, "size": size}})

    assert "1.1 MiB of files; expected at most 1 MiB." in told(2, (1 << 20) + 1)
    assert "65 files; expected at most 64." in told(65, 1)
    assert "The answer appears here." in told(64, 1 << 20)


def test_nobody_else_is_asked(client, resolved):
    text = client.get("/").text + client.get("/theme.css").text
    assert not re.findall(r"""(?:src=|href=|url\()["']?(?:https?:)?//[^"')]+""", text)
    assert not client.get("/config").json()["analytics_enabled"]
    assert set(resolved) <= {"127.0.0.1", "localhost"}


def test_the_api_answers_while_the_page_is_being_made_and_both_end_together(repository, monkeypatch):
    begin, make = threading.Event(), mounting.Page.make
    monkeypatch.setattr(mounting.Page, "make", lambda page: begin.wait(60) and make(page))
    app = application(repository)
    with TestClient(app) as client:
        page = of(app)
        assert client.get("/readyz").status_code == 200
        assert not page.made.done()
        begin.set()
        assert "gradio_config" in client.get("/").text
        assert page.folder.is_dir()
    assert not app.state.service.ready
    assert not page.folder.exists()


def test_a_server_without_it_has_none(repository):
    with TestClient(application(repository, web=False)) as client:
        assert client.get("/").status_code == 404


def test_the_parts_of_the_page_count_as_no_requests(repository):
    with TestClient(application(repository, web=False, rate="2/minute")) as client:
        assert {client.get("/assets/a.js").status_code for _ in range(4)} == {404}
        assert [client.get("/model").status_code for _ in range(3)] == [200, 200, 429]


def test_disagreement_is_said_in_words():
    cat, dog = (answers.Vote(label=name, probability=1, probabilities={}) for name in ("cat", "dog"))
    assert views.agreement({"left": cat, "right": dog}, "cat") == "1 of 2 say cat; right says dog."
    assert views.agreement({"left": cat, "right": cat}, "cat") == "All of them say cat."
    assert views.agreement({"left": dog, "right": dog}, "owl") == (
        "None of them says owl alone: left says dog, right says dog."
    )
    assert views.agreement({"left": cat, "right": dog, "third": None}, "cat") == "1 of 2 say cat; right says dog."


@pytest.mark.parametrize(("hits", "n"), [(356, 359), (0, 7), (7, 7)])
def test_the_interval_is_wilsons(hits, n):
    low, high = shares(np.array([hits]), np.array([n]), 0.95)
    np.testing.assert_allclose(views.interval(hits / n, n), [low[0], high[0]], atol=1e-6)


@pytest.mark.parametrize(("share", "words"), [(0.99951, "> 99.9%"), (1, "100.0%"), (0.0001, "< 0.1%"), (0, "0.0%")])
def test_no_share_is_rounded_to_certainty(share, words):
    assert views.percent(share) == words
