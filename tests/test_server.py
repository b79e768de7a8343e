"""The server answers as the bundle does, refuses what it should in words, and never makes one pay for another."""

import asyncio
import base64
import hashlib
import io
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from serving import Bundle
from serving.server import __main__ as command
from serving.server import answers
from serving.server.app import create
from serving.server.batching import Batcher
from serving.server.connections import protocol
from serving.server.refusals import RefusedError
from serving.server.settings import Settings
from serving.web import views
from stages.images.dataset import Dataset
from stages.running.errors import UserError
from tests import bundles


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return bundles.made(tmp_path_factory.mktemp("made"), loss=0.02)


@pytest.fixture(scope="module")
def bundle(repository):
    return Bundle.load(repository / "models/bundle", threads=1)


@pytest.fixture(scope="module")
def images(repository):
    data = Dataset.load(repository / "data")
    return data.take(data.test_rows[:20])


@pytest.fixture(scope="module")
def client(bundle):
    with TestClient(create(bundle, settings()), raise_server_exceptions=False) as client:
        yield client


def settings(**changes):
    return Settings(web=False, threads=1, **changes)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def based(image):
    return base64.b64encode(png(image)).decode()


def infer(client, body, **more):
    return client.post("/v2/models/foldstack/infer", content=json.dumps(body), **more)


def test_predict_answers_as_the_bundle_by_form_and_by_json(client, bundle, images):
    answer = bundle.predict(images)
    for number, image in enumerate(images):
        by_form = client.post("/predict", files={"image": png(image)})
        by_json = client.post("/predict", json={"image": based(image)})
        assert by_form.status_code == by_json.status_code == 200, by_form.text
        assert by_form.json() == by_json.json()
        said = by_form.json()
        assert said["label"] == answer.labels[number]
        np.testing.assert_allclose(list(said["probabilities"].values()), answer.probabilities[number], atol=1e-6)
        assert set(said["set"]) == {bundles.CLASSES[place] for place in np.flatnonzero(answer.sets[number])}
        assert [one["label"] for one in said["top"]] == [
            bundles.CLASSES[k] for k in answer.probabilities[number].argsort()[::-1]
        ]
        assert (said["unsure"] is None) == (len(said["set"]) == 1)
        for name in said["set"]:
            assert said["unsure"] is None or name in said["unsure"]
        assert said["model"] == client.get("/model").json()["model"]


def test_a_data_url_is_base64_too(client, images):
    body = {"image": f"data:image/png;base64,{based(images[0])}"}
    assert client.post("/predict", json=body).json() == client.post("/predict", files={"image": png(images[0])}).json()


def test_a_batch_answers_for_each_and_one_that_is_no_image_spoils_no_other(client, images):
    came = [
        ("images", ("a.png", png(images[0]))),
        ("images", ("b.txt", b"no image")),
        ("images", ("c.png", png(images[1]))),
    ]
    first, broken, last = client.post("/predict/batch", files=came).json()["files"]
    assert (first["name"], broken["name"], last["name"]) == ("a.png", "b.txt", "c.png")
    assert first["prediction"] == client.post("/predict", files={"image": png(images[0])}).json()
    assert last["prediction"] == client.post("/predict", files={"image": png(images[1])}).json()
    assert broken["prediction"] is None
    assert broken["error"].startswith("the image cannot be read: no PNG, JPEG")


def test_votes_are_told_to_those_who_ask_for_them(client, bundle, images):
    known = bundle.predict(images[:1]).votes
    alone = client.post("/predict?votes=true", files={"image": png(images[0])}).json()
    batch = client.post("/predict/batch?votes=true", files=[("images", png(images[0]))]).json()
    assert batch["files"][0]["prediction"] == alone
    assert list(alone["votes"]) == list(bundles.SEEDS)
    for name, vote in alone["votes"].items():
        assert list(vote["probabilities"]) == bundles.CLASSES
        np.testing.assert_allclose(list(vote["probabilities"].values()), known[name][0], atol=1e-6)
        assert vote["label"] == bundles.CLASSES[known[name][0].argmax()]
        assert vote["probability"] == max(vote["probabilities"].values())
    plain = client.post("/predict", files={"image": png(images[0])}).json()
    assert plain == {**alone, "votes": None}
    refused = client.post("/predict?votes=perhaps", files={"image": png(images[0])})
    assert (refused.status_code, "query.votes" in refused.json()["error"]) == (422, True)


@pytest.fixture(scope="module")
def cascade(repository):
    return Bundle.load(repository / "models/bundle", threads=1, cascade=True)


def test_who_was_not_asked_by_the_cascade_has_no_vote(cascade, images):
    asked = ~np.isnan(cascade.predict(images).votes["right"]).any(axis=1)
    assert 0 < asked.sum() < len(images)
    with TestClient(create(cascade, settings())) as client:
        came = [("images", png(image)) for image in images]
        files = client.post("/predict/batch?votes=true", files=came).json()["files"]
    votes = [one["prediction"]["votes"] for one in files]
    assert [one["right"] is not None for one in votes] == asked.tolist()
    assert all(one["left"] for one in votes)


def test_the_model_is_told_with_the_scores_of_the_cascade_where_that_answers(client, cascade):
    whole, step = answers.model(cascade, "1"), cascade.manifest["cascade"][0]
    assert whole["cascade"] == {name: step[name] for name in ("first", "threshold", "out_of_fold", "test")}
    alone = client.get("/model").json()
    assert (alone["cascade"], alone["student"]) == (None, None)
    assert alone["scores"] == whole["scores"] == cascade.manifest["scores"]
    small_print = views.about(cascade, "1")
    assert step["test"]["accuracy"] != whole["scores"]["accuracy"]
    assert f"its cascade: {step['test']['accuracy']:.1%} of 60 " in small_print
    assert f"; the whole stack {whole['scores']['accuracy']:.1%} and " in small_print


def test_the_protocol_answers_for_arrays_and_files_as_json_and_as_bytes(client, bundle, images):
    expected = bundle.predict(images)
    data = {"name": "images", "shape": list(images.shape), "datatype": "UINT8"}
    nested = infer(client, {"id": "7", "inputs": [{**data, "data": images.tolist()}]}).json()
    assert (nested["id"], nested["model_name"]) == ("7", "foldstack")
    flat = infer(client, {"inputs": [{**data, "data": images.reshape(-1).tolist()}]}).json()
    files = {"name": "files", "shape": [len(images)], "datatype": "BYTES", "data": [based(image) for image in images]}
    for found in (nested, flat, infer(client, {"inputs": [files]}).json()):
        outputs = {one["name"]: one for one in found["outputs"]}
        p = np.reshape(outputs["probabilities"]["data"], outputs["probabilities"]["shape"])
        np.testing.assert_allclose(p, expected.probabilities, atol=1e-6)
        assert outputs["label"]["data"] == expected.labels
        np.testing.assert_array_equal(np.reshape(outputs["set"]["data"], p.shape), expected.sets)


@pytest.mark.parametrize("kind", ["images", "files"])
def test_the_protocol_takes_and_gives_binary_tensors(client, bundle, images, kind):
    if kind == "images":
        tail, shape, datatype = images.tobytes(), list(images.shape), "UINT8"
    else:
        contents = [png(image) for image in images]
        tail = b"".join(len(one).to_bytes(4, "little") + one for one in contents)
        shape, datatype = [len(images)], "BYTES"
    tensor = {"name": kind, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(tail)}}
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in ("probabilities", "label")]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    path, headers = "/v2/models/foldstack/infer", {"Inference-Header-Content-Length": str(len(head))}
    answer = client.post(path, content=head + tail, headers=headers)
    length = int(answer.headers["Inference-Header-Content-Length"])
    outputs = json.loads(answer.content[:length])["outputs"]
    sizes = [one["parameters"]["binary_data_size"] for one in outputs]
    assert length + sum(sizes) == len(answer.content)
    p = np.frombuffer(answer.content[length : length + sizes[0]], np.float64).reshape(outputs[0]["shape"])
    expected = bundle.predict(images)
    np.testing.assert_allclose(p, expected.probabilities, atol=1e-6)
    rest, labels = answer.content[length + sizes[0] :], []
    while rest:
        size = int.from_bytes(rest[:4], "little")
        labels.append(rest[4 : 4 + size].decode())
        rest = rest[4 + size :]
    assert labels == expected.labels


def test_the_protocol_describes_itself_and_its_version(client):
    about = client.get("/v2/models/foldstack").json()
    assert about["inputs"][0] == {"name": "images", "datatype": "UINT8", "shape": [-1, bundles.SIZE, bundles.SIZE, 3]}
    (version,) = about["versions"]
    assert client.get(f"/v2/models/foldstack/versions/{version}").json() == about
    assert client.get("/v2/models/foldstack/versions/other").status_code == 404
    for path in ("health/live", "health/ready", "models/foldstack/ready"):
        assert client.get(f"/v2/{path}").status_code == 200
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]


SHAPE = {"name": "images", "shape": [1, 8, 8, 3], "datatype": "UINT8"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[", "JSON"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [{**SHAPE, "name": "x"}]}, "expected 'images' or 'files'"),
        ({"inputs": [{**SHAPE, "shape": [1, 9, 8, 3]}]}, r"UINT8 [1, 9, 8, 3]; expected UINT8 ['n', 8, 8, 3]"),
        ({"inputs": [{**SHAPE, "shape": [65, 8, 8, 3]}]}, "n from 1 to 64"),
        ({"inputs": [{**SHAPE, "shape": []}]}, "images: UINT8 []"),
        ({"inputs": [SHAPE]}, "neither `data` nor `binary_data_size`"),
        ({"inputs": [{**SHAPE, "parameters": {"binary_data_size": 192}}]}, "0 bytes follow the JSON"),
        ({"inputs": [{**SHAPE, "data": [1, 2]}]}, "2 values; expected 192"),
        ({"inputs": [{**SHAPE, "data": [[1], [1, 2]]}]}, "3 values; expected 192"),
        ({"inputs": [{**SHAPE, "data": [0.5] * 192}]}, "whole numbers from 0 to 255"),
        ({"inputs": [{**SHAPE, "data": [256] * 192}]}, "whole numbers from 0 to 255"),
        ({"inputs": [{**SHAPE, "data": [0] * 191 + ["y" * 9999]}]}, "whole numbers from 0 to 255"),
        ({"inputs": [{**SHAPE, "data": [[[]] * 9]}]}, "0 values; expected 192"),
        ({"inputs": [{**SHAPE, "data": [[0], 1]}]}, "whole numbers from 0 to 255"),
        ({"inputs": [{**SHAPE, "data": [0] * 192}], "outputs": [{"name": "set"}] * 4}, "at most 3 items"),
        ({"inputs": [{**SHAPE, "data": [0] * 192}], "outputs": [{"name": "y"}]}, "output 'y'; expected probabilities"),
        ({"inputs": [{"name": "files", "shape": [1], "datatype": "BYTES", "data": [1]}]}, "texts in base64"),
        (
            {"inputs": [{"name": "files", "shape": [2], "datatype": "BYTES", "data": ["AA=="]}]},
            "1 elements; expected 2",
        ),
    ],
)
def test_the_protocol_refuses_in_words(client, body, words):
    answer = client.post("/v2/models/foldstack/infer", content=body if isinstance(body, str) else json.dumps(body))
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_a_binary_tensor_that_ends_early_is_refused(client):
    tail = (100).to_bytes(4, "little") + b"short"
    tensor = {"name": "files", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    for length, words in (
        (str(len(head)), "an element ends after the tensor does"),
        ("9999", "expected a number"),
        ("0" * 5000, "expected"),
    ):
        headers = {"Inference-Header-Content-Length": length}
        answer = client.post("/v2/models/foldstack/infer", content=head + tail, headers=headers)
        assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"content": b""}, 415, "no content type; expected multipart/form-data"),
        ({"content": b"x", "headers": {"content-type": "image/png"}}, 415, "image/png; expected multipart/form-data"),
        ({"content": b"--", "headers": {"content-type": "multipart/form-data"}}, 400, "the form cannot be read"),
        ({"files": {"other": b"x"}}, 400, "0 files named image; expected one file"),
        ({"files": [("image", b"x"), ("image", b"y")]}, 400, "the form cannot be read: Too many files"),
        ({"data": {"image": "text"}, "files": {"more": b""}}, 400, "0 files named image"),
        ({"json": {"picture": ""}}, 400, 'the body is not {"image": "<base64>"}'),
        ({"json": {"image": "%%%"}}, 400, "`image` is no base64"),
        ({"json": {"image": ""}}, 422, "the image cannot be read: 0 bytes"),
        ({"files": {"image": b"x"}}, 422, "no PNG, JPEG, WEBP, GIF, BMP image"),
        ({"files": {"image": b"P5 1 1 255 x"}}, 422, "no PNG, JPEG, WEBP, GIF, BMP image"),
    ],
)
def test_predict_refuses_in_words(client, given, status, words):
    answer = client.post("/predict", **given)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(bundle):
    large = io.BytesIO()
    Image.new("1", (2000, 1001)).save(large, "PNG")
    with TestClient(create(bundle, settings(megapixels=2))) as client:
        answer = client.post("/predict", files={"image": large.getvalue()})
    assert answer.status_code == 422
    assert "2,000 x 1,001 pixels" in answer.json()["error"]


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(bundle):
    body = b"x" * ((1 << 20) + 1)
    with TestClient(create(bundle, settings(body=1))) as client:
        announced = client.post("/predict", content=body)
        counted = client.post("/predict", content=iter([body]))
        again = client.post("/predict", files={"image": b"x"})
    for answer in (announced, counted):
        assert answer.status_code == 413
        assert "expected at most 1,048,576" in answer.json()["error"]
    assert again.status_code == 422


def test_a_compressed_body_is_refused(client):
    answer = client.post("/predict", content=b"x", headers={"content-encoding": "gzip"})
    assert (answer.status_code, "coded as gzip; expected none" in answer.json()["error"]) == (415, True)


def test_unknown_routes_and_methods_are_refused_as_json(client):
    assert client.get("/absent").json() == {"error": "Not Found"}
    answer = client.get("/predict")
    assert (answer.status_code, answer.json()) == (405, {"error": "Method Not Allowed"})


def test_what_fails_inside_is_told_without_its_trace(bundle, images, monkeypatch):
    def failing(images):
        raise ZeroDivisionError("secret")

    app = create(bundle, settings())
    with TestClient(app, raise_server_exceptions=False) as client:
        monkeypatch.setattr(app.state.service.batcher, "ask", failing)
        answer = client.post("/predict", files={"image": png(images[0])})
    assert answer.status_code == 500
    assert answer.json() == {"error": "this server failed at the request; its log says why"}


def test_a_rate_counts_requests_but_not_who_watches(bundle):
    with TestClient(create(bundle, settings(rate="2/minute"))) as client:
        codes = [client.get("/model").status_code for _ in range(3)]
        refused = client.get("/model")
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert codes == [200, 200, 429]
    assert 1 <= int(refused.headers["Retry-After"]) <= 60


def test_metrics_count_answers_by_route_and_status(bundle, images):
    with TestClient(create(bundle, settings())) as client:
        client.post("/predict", files={"image": png(images[0])})
        client.post("/predict", files={"image": b"x"})
        client.get("/absent")
        lines = client.get("/metrics").text.splitlines()
    assert 'foldstack_requests_total{route="/predict",status="200"} 1.0' in lines
    assert 'foldstack_requests_total{route="/predict",status="422"} 1.0' in lines
    assert 'foldstack_requests_total{route="other",status="404"} 1.0' in lines
    assert "foldstack_decoding_seconds_count 2.0" in lines
    assert "foldstack_batch_images_sum 2.0" in lines  # the warm-up and one image


def test_the_openapi_document_names_every_route(client):
    document = client.get("/openapi.json").json()
    assert {"/predict", "/predict/batch", "/v2/models/foldstack/infer", "/readyz"} <= set(document["paths"])
    assert set(document["paths"]["/predict"]["post"]["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
    }


def test_the_page_of_the_api_takes_everything_from_here_and_its_policy_lets_it_take_nothing_else(client):
    page = client.get("/docs")
    assert (page.status_code, client.get("/redoc").status_code) == (200, 404)
    taken = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page.text)
    found = [client.get(path or url) for path, url in taken]
    assert [(one.status_code, one.headers["content-type"].split(";")[0]) for one in found] == [
        (200, kind) for kind in ("text/css", "image/png", "text/javascript", "application/json")
    ]
    policy = dict(part.split(maxsplit=1) for part in page.headers["content-security-policy"].split("; "))
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert set(" ".join(policy.values()).split()) <= {
        "'none'",
        "'self'",
        "'unsafe-inline'",
        f"'sha256-{digest}'",
        "data:",
    }


def test_it_is_ready_only_once_the_networks_have_answered(bundle):
    app = create(bundle, settings())
    assert TestClient(app).get("/readyz").status_code == 503  # without the start that TestClient does in `with`
    with TestClient(app) as client:
        assert client.get("/readyz").json() == {"status": "ready"}


class Slow:
    """Networks that answer when they are told to."""

    def __init__(self):
        self.sizes, self.gate = [], threading.Event()

    def __call__(self, images):
        self.gate.wait(5)
        self.sizes.append(len(images))
        if (images == 13).any():
            raise ValueError("13")
        return [int(image[0]) for image in images]


def pixels(value):
    return np.array([value])


def batched(play, **changes):
    """What `play(batcher, slow)` returns."""

    async def run():
        slow = Slow()
        batcher = Batcher(slow, **{"batch": 4, "queue": 8, "deadline": 60.0, **changes})
        batcher.start()
        try:
            return await play(batcher, slow)
        finally:
            slow.gate.set()
            await batcher.stop()

    return asyncio.run(run())


def test_what_gathers_while_the_networks_are_busy_goes_together_and_in_order():
    async def play(batcher, slow):
        tasks = [asyncio.create_task(batcher.one(pixels(n))) for n in range(8)]
        await asyncio.sleep(0.05)
        slow.gate.set()
        return await asyncio.gather(*tasks), slow.sizes

    answers, sizes = batched(play)
    assert answers == list(range(8))
    assert sum(sizes) == 8
    assert max(sizes) == 4


def test_one_image_that_fails_spoils_no_other():
    async def play(batcher, slow):
        slow.gate.set()
        return await asyncio.gather(*(batcher.one(pixels(n)) for n in (11, 12, 13, 14)), return_exceptions=True)

    one, two, failed, four = batched(play)
    assert (one, two, four) == (11, 12, 14)
    assert isinstance(failed, ValueError)


def test_the_queue_is_bounded_and_says_when_to_come_again():
    async def play(batcher, slow):
        with batcher.places(7):
            words = "busy: 7 of 8 places are taken, 2 more were asked for"
            with pytest.raises(RefusedError, match=words) as refused, batcher.places(2):
                pass
            with batcher.places(1):
                pass
        return refused.value, batcher.under_way

    refused, under_way = batched(play)
    assert (refused.status, refused.retry_after, under_way) == (503, 1, 0)


def test_a_request_that_finds_no_place_is_told_503_and_others_are_answered(bundle, images):
    app = create(bundle, settings(queue=2))
    with TestClient(app) as client:
        busy = client.post("/predict/batch", files=[("images", png(image)) for image in images[:3]])
        answers = client.post("/predict/batch", files=[("images", png(image)) for image in images[:2]])
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "1")
    assert [one["error"] for one in answers.json()["files"]] == [None, None]


def test_an_image_that_waited_too_long_is_told_so_and_asks_no_network():
    async def play(batcher, slow):
        tasks = [asyncio.create_task(batcher.one(pixels(n))) for n in range(6)]
        await asyncio.sleep(0.2)
        slow.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True), slow.sizes

    answers, sizes = batched(play, deadline=0.1)
    late = [answer for answer in answers if isinstance(answer, RefusedError)]
    assert sum(sizes) + len(late) == 6
    assert 2 <= len(late) <= 5  # what the first batch took had not waited
    assert all("waited for more than 0.1 s" in str(one) for one in late)


def test_who_gave_up_is_not_asked_for():
    async def play(batcher, slow):
        first = asyncio.create_task(batcher.one(pixels(1)))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(batcher.one(pixels(2)))
        await asyncio.sleep(0.02)
        second.cancel()
        slow.gate.set()
        return await first, await batcher.one(pixels(3)), sum(slow.sizes)

    assert batched(play) == (1, 3, 2)


@contextmanager
def serving(app, patience=5.0):
    """A real server on loopback, and its port: connections are not the test client's."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=protocol(patience), log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def served(bundle):
    with serving(create(bundle, settings(patience=0.3)), 0.3) as (_, port):
        yield port


def test_what_was_begun_is_finished_before_the_server_ends(bundle, images, monkeypatch):
    app, begun, gate = create(bundle, settings()), threading.Event(), threading.Event()
    with serving(app) as (server, port), ThreadPoolExecutor() as pool:
        ask = app.state.service.batcher.ask

        def slow(images):
            begun.set()
            gate.wait(5)
            return ask(images)

        monkeypatch.setattr(app.state.service.batcher, "ask", slow)
        url = f"http://127.0.0.1:{port}/predict"
        answer = pool.submit(httpx.post, url, files={"image": png(images[0])})
        assert begun.wait(5)
        server.should_exit = True  # what SIGTERM sets
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            httpx.post(url, files={"image": png(images[0])})
        gate.set()
        assert answer.result().json()["label"] == bundle.predict(images[:1]).labels[0]


async def talk(port, *parts):
    """What a server sends until it closes the connection, to parts sent 0.1 s apart."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.1)
    found = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return found


CHUNKED = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"


@pytest.mark.parametrize(
    ("parts", "answer"),
    [
        ([b"GET /healthz HTTP/1.1\r\n", b"Host: x\r\n"], b""),  # headers that never end
        ([b""], b""),
        ([b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000, b"y" * 70_000, b"y"], b""),  # headers that are too long
        ([CHUNKED, b"X: " + b"y" * 70_000, b"y" * 70_000, b"y"], b""),  # trailers that are too long
        ([b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nshort"], b"HTTP/1.1 408 "),
        ([b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"], b"HTTP/1.1 413 "),
        ([b"no http\r\n\r\n"], b"HTTP/1.1 400 "),
    ],
)
def test_slow_and_lying_connections_are_closed(served, parts, answer):
    found = asyncio.run(talk(served, *parts))
    assert found.startswith(answer) if answer else found == b""


def test_flags_and_environment_set_the_same(monkeypatch):
    monkeypatch.setenv("FOLDSTACK_PORT", "9000")
    monkeypatch.setattr("sys.argv", ["server", "some/bundle", "--no-web", "--rate", "5/second"])
    given = command.settings()
    assert (str(given.bundle), given.port, given.web, given.rate) == ("some/bundle", 9000, False, "5/second")


def test_a_setting_that_cannot_be_is_one_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["server"])
    monkeypatch.setenv("FOLDSTACK_RATE", "nonsense")
    with pytest.raises(UserError, match=r"rate: .*'nonsense'"):
        command.settings()
    monkeypatch.delenv("FOLDSTACK_RATE")
    monkeypatch.setattr("sys.argv", ["server", "--batch", "0"])
    with pytest.raises(UserError, match="batch: Input should be greater than or equal to 1, not '0'"):
        command.settings()
