"""Whatever is asked of the server: an answer that says the same in every form, or a refusal in words, never a fault."""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from serving.pictures import UnreadableError, opened
from serving.server import protocol, refusals, routes
from serving.server.protocol import HEADER, LENGTH
from serving.server.refusals import RefusedError
from serving.server.service import FORMATS, Said
from serving.server.settings import Settings
from stages.images.decoding import Wanted

SIZE, CLASSES = 2, ("cat", "dög", "owl")
INFER = f"/v2/models/{protocol.NAME}/infer"


class Toy:
    """In place of a bundle and its queue: the three channels of an image are its three probabilities."""

    wanted = Wanted(SIZE, formats=FORMATS)
    settings = Settings(web=False, files=4)
    bundle = SimpleNamespace(classes=CLASSES, manifest={"sets": {"coverage": 0.9}})
    version, ready = "toy", True

    async def classify_pixels(self, images: np.ndarray) -> list[Said]:
        return [self.said(image) for image in images]

    async def classify_each(self, contents: Sequence[bytes]) -> list[Said | RefusedError]:
        found: list[Said | RefusedError] = []
        for content in contents:
            try:
                found.append(self.said(opened(content, self.wanted)))
            except UnreadableError as error:
                found.append(RefusedError(422, str(error)))
        return found

    async def classify_all(self, contents: Sequence[bytes]) -> list[Said]:
        found = await self.classify_each(contents)
        for one in found:
            if isinstance(one, RefusedError):
                raise one
        return cast(list[Said], found)

    async def classify(self, content: bytes) -> Said:
        return (await self.classify_all([content]))[0]

    def said(self, image: np.ndarray) -> Said:
        p = image.reshape(-1, 3).sum(axis=0) + 1.0
        p /= p.sum()
        return Said(p, p > 0.1, {})


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app, toy = FastAPI(), cast(Any, Toy())
    app.include_router(routes.router(toy))
    app.include_router(protocol.router(toy))
    refusals.add(app)
    with TestClient(app) as client:  # a fault is raised here
        yield client


def answered(client: TestClient, path: str, content: bytes, **headers: str) -> dict[str, Any] | None:
    """The JSON of an answer; None for a refusal, which is one in words."""
    came = client.post(path, content=content, headers={name.replace("_", "-"): one for name, one in headers.items()})
    if came.status_code == 200:
        return came.json() if "json" in came.headers["content-type"] else {}
    assert 400 <= came.status_code < 500
    assert isinstance(came.json()["error"], str)
    return None


WORDS = ["inputs", "outputs", "images", "files", "UINT8", "BYTES", "name", "shape", "datatype", "data", "parameters"]
WORDS += ["binary_data", "binary_data_size", "binary_data_output", "probabilities", "set", "label", "id", "image"]
TEXTS = st.text(max_size=4) | st.sampled_from([*WORDS, "\ud800", "AAAA", "data:,AA=="])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)
PARAMETERS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("binary_data", "binary_data_size", "binary_data_output"), SCALARS)
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["images", "files", ""]),
        "shape": st.sampled_from([[1], [2], [1, SIZE, SIZE, 3], [2, SIZE, SIZE, 3], [0], []]) | VALUES,
        "datatype": st.sampled_from(["UINT8", "BYTES", "FP32"]),
    },
    optional={
        "data": st.lists(st.integers(0, 255), min_size=12, max_size=12) | st.lists(TEXTS, max_size=2) | VALUES,
        "parameters": PARAMETERS | VALUES,
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, min_size=1, max_size=2)},
    optional={"id": VALUES, "parameters": PARAMETERS, "outputs": VALUES},
)


@given(st.sampled_from([INFER, "/predict"]), (REQUEST | VALUES).map(json.dumps), st.binary(max_size=20), SCALARS)
@example(INFER, "[" * 100_000, b"", None)
@example(INFER, "9" * 5000, b"", None)
def test_any_json_is_answered_or_refused(client: TestClient, path: str, head: str, rest: bytes, length: Any) -> None:
    body, given_ = head.encode(), str(length).encode("ascii", "ignore").decode()
    answered(client, path, body + rest, content_type="application/json")
    answered(client, INFER, body + rest, inference_header_content_length=str(len(body)))
    answered(client, INFER, body + rest, inference_header_content_length="".join(filter(str.isprintable, given_)))


@given(st.sampled_from(["/predict", "/predict/batch"]), st.binary(max_size=60), st.text('-b\r\n;="aimge', max_size=30))
def test_any_form_is_answered_or_refused(client: TestClient, path: str, content: bytes, more: str) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="image{"s" * ("batch" in path)}"; filename="a"{more}\r\n\r\n'
    kind = "multipart/form-data; boundary=b"
    answered(client, path, head.encode() + content + b"\r\n--b--\r\n", content_type=kind)
    answered(client, path, content, content_type=kind)


IMAGES = st.lists(st.binary(min_size=12, max_size=12), min_size=1, max_size=4)


@given(IMAGES)
def test_a_tensor_says_the_same_in_json_and_in_binary(client: TestClient, contents: list[bytes]) -> None:
    n, whole = len(contents), b"".join(contents)
    tensor: dict[str, Any] = {"name": "images", "shape": [n, SIZE, SIZE, 3], "datatype": "UINT8"}
    plain = answered(client, INFER, json.dumps({"inputs": [tensor | {"data": list(whole)}]}).encode())
    assert plain is not None
    asked = {"inputs": [tensor | {"parameters": {"binary_data_size": len(whole)}}]}
    asked["parameters"] = cast(Any, {"binary_data_output": True})
    head = json.dumps(asked).encode()
    came = client.post(INFER, content=head + whole, headers={HEADER: str(len(head))})
    told = json.loads(came.content[: int(came.headers[HEADER])])
    rest = came.content[int(came.headers[HEADER]) :]
    for one, other in zip(told["outputs"], plain["outputs"], strict=True):
        size = one["parameters"]["binary_data_size"]
        part, rest = rest[:size], rest[size:]
        if one["datatype"] == "BYTES":
            found: Any = [element.decode() for element in protocol.elements(protocol.Tensor(**one), part)]
        else:
            found = np.frombuffer(part, {"FP64": np.float64, "BOOL": bool}[one["datatype"]]).tolist()
        assert found == other["data"]
    assert rest == b""


@given(st.lists(st.binary(max_size=9), max_size=5), st.data())
def test_elements_come_back_and_a_cut_is_refused(contents: list[bytes], data: Any) -> None:
    tensor = protocol.Tensor(name="files", shape=[len(contents)], datatype="BYTES")
    packed = protocol.raw(np.array([*contents, None], object)[:-1]) if contents else b""
    assert protocol.elements(tensor, packed) == contents
    cut = packed[: data.draw(st.integers(0, max(0, len(packed) - 1)))]
    ends = np.cumsum([0, *(LENGTH + len(content) for content in contents)]).tolist()
    if len(cut) in ends:
        assert protocol.elements(tensor, cut) == contents[: ends.index(len(cut))]
        return
    with pytest.raises(RefusedError, match="ends after"):
        protocol.elements(tensor, cut)


@given(st.lists(st.integers(0, 255), min_size=12, max_size=12), st.sampled_from(["PNG", "BMP"]))
def test_a_file_is_answered_alike_by_every_route(client: TestClient, values: list[int], form: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.array(values, np.uint8).reshape(SIZE, SIZE, 3)).save(file, form)
    based = base64.b64encode(file.getvalue()).decode()
    one = answered(client, "/predict", json.dumps({"image": based}).encode(), content_type="application/json")
    batch = client.post("/predict/batch", files=[("images", ("a", file.getvalue()))] * 2).json()
    assert [each["prediction"] for each in batch["files"]] == [one, one]
    tensor = {"name": "files", "shape": [1], "datatype": "BYTES", "data": [based]}
    said = answered(client, INFER, json.dumps({"inputs": [tensor]}).encode())
    assert one is not None
    assert said is not None
    assert said["outputs"][0]["data"] == list(one["probabilities"].values())
    assert said["outputs"][2]["data"] == [one["label"]]
