"""The Open Inference Protocol, version 2, with its binary tensors: what clients of Triton and KServe speak.

https://github.com/kserve/open-inference-protocol. Of the two inputs one is given: `images`, decoded and of the bundle's
size, or `files`, image files (in JSON as base64).
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from itertools import chain
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, ValidationError

from serving.server.refusals import RefusedError
from serving.server.routes import REFUSALS, unbased
from serving.server.service import Said, Service

NAME = "foldstack"
HEADER, LONGEST = "inference-header-content-length", 20
"""A header, and how many digits it may have: Python refuses to read thousands."""
IMAGES, FILES = "images", "files"
LENGTH = 4
"""Bytes before each element of a BYTES tensor that say how many it has, little endian."""


class Parameters(BaseModel):
    binary_data_size: int | None = Field(default=None, ge=0)
    binary_data: bool = False
    binary_data_output: bool = False


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = Field(default_factory=Parameters)
    data: list[Any] | None = None


class Output(BaseModel):
    name: str
    parameters: Parameters = Field(default_factory=Parameters)


class Inference(BaseModel):
    id: str | None = None
    parameters: Parameters = Field(default_factory=Parameters)
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Output] = Field(default=[], max_length=3)


def bad(message: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, message)


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol 2"])
    model, size = f"/models/{NAME}", service.wanted.size
    version = f"{model}/versions/{service.version}"

    def tensors() -> dict[str, Any]:
        k = len(service.bundle.classes)
        inputs = [(IMAGES, "UINT8", [-1, size, size, 3]), (FILES, "BYTES", [-1])]
        outputs = [("probabilities", "FP64", [-1, k]), ("set", "BOOL", [-1, k]), ("label", "BYTES", [-1])]
        names = ("name", "datatype", "shape")
        return {
            "inputs": [dict(zip(names, one, strict=True)) for one in inputs],
            "outputs": [dict(zip(names, one, strict=True)) for one in outputs],
        }

    def alive() -> Response:
        return Response()

    def ready() -> Response:
        return Response(status_code=HTTPStatus.OK if service.ready else HTTPStatus.SERVICE_UNAVAILABLE)

    def server() -> dict[str, Any]:
        return {"name": NAME, "version": service.version, "extensions": ["binary_tensor_data"]}

    def metadata() -> dict[str, Any]:
        return {"name": NAME, "versions": [service.version], "platform": "onnxruntime", **tensors()}

    routes.get("/health/live")(alive)
    routes.get("/health/ready")(ready)
    routes.get("")(server)
    for path in (model, version):
        routes.get(path)(metadata)
        routes.get(f"{path}/ready")(ready)
        routes.post(f"{path}/infer", responses=REFUSALS, openapi_extra={"requestBody": body(path)})(infer(service))
    return routes


def body(path: str) -> dict[str, Any]:
    """What the route takes, for the OpenAPI document, where definitions are named from the root."""
    place = f"#/paths/{f'/v2{path}/infer'.replace('/', '~1')}/post/requestBody/content/application~1json/schema/$defs"
    schema = Inference.model_json_schema(ref_template=f"{place}/{{model}}")
    return {"content": {"application/json": {"schema": schema}}, "required": True}


def infer(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        head, rest = parts(await request.body(), request.headers.get(HEADER))
        try:
            asked = Inference.model_validate_json(head)
        except ValidationError as error:
            first = error.errors()[0]
            raise bad(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        said = await classified(asked.inputs[0], rest, service)
        found = {
            "probabilities": np.stack([one.probabilities for one in said]),
            "set": np.stack([one.set for one in said]),
            "label": np.array([service.bundle.classes[one.ranked()[0]].encode() for one in said], object),
        }
        return answered(asked, found, service.version)

    return route


async def classified(tensor: Tensor, rest: bytes, service: Service) -> Sequence[Said]:
    """What is said of the images of a request. Raises RefusedError where there is no answer for one of them."""
    size, most = service.wanted.size, service.settings.files
    expected = {IMAGES: ("UINT8", [size, size, 3]), FILES: ("BYTES", [])}
    if tensor.name not in expected:
        raise bad(f"input {tensor.name[:80]!r}; expected {IMAGES!r} or {FILES!r}")
    datatype, shape = expected[tensor.name]
    n, *each = tensor.shape or [0]
    if tensor.datatype != datatype or each != shape or not 1 <= n <= most:
        wanted = f"{datatype} {['n', *shape]} with n from 1 to {most}"
        raise bad(f"{tensor.name}: {tensor.datatype[:20]} {tensor.shape[:9]}; expected {wanted}")
    if tensor.name == FILES:
        return await service.classify_all(files(tensor, rest, n))
    return await service.classify_pixels(pixels(tensor, rest, (n, size, size, 3)))


def pixels(tensor: Tensor, rest: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """A UINT8 tensor. Raises RefusedError."""
    values = np.frombuffer(binary(tensor, rest) if tensor.data is None else flat(tensor), np.uint8)
    if values.size != np.prod(shape):
        raise bad(f"{tensor.name}: {values.size:,} values; expected {np.prod(shape):,}, as `shape` says")
    return values.reshape(shape)


def flat(tensor: Tensor) -> bytes:
    """The values of `data`, one list or lists in lists. Raises RefusedError."""
    values: Any = tensor.data
    try:
        while values and isinstance(values[0], list):
            values = list(chain.from_iterable(values))
        return bytes(values)
    except (TypeError, ValueError):
        raise bad(f"{tensor.name}: `data` has other values than whole numbers from 0 to 255") from None


def files(tensor: Tensor, rest: bytes, n: int) -> list[bytes]:
    """The elements of a BYTES tensor. Raises RefusedError."""
    if tensor.data is None:
        found = elements(tensor, binary(tensor, rest))
    elif all(isinstance(one, str) for one in tensor.data):
        found = [unbased(one) for one in tensor.data]
    else:
        raise bad(f"{tensor.name}: `data` has other values than texts in base64")
    if len(found) != n:
        raise bad(f"{tensor.name}: {len(found)} elements; expected {n}, as `shape` says")
    return found


def elements(tensor: Tensor, content: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(content):
        start = at + LENGTH
        at = start + int.from_bytes(content[at:start], "little")
        if at > len(content) or start > len(content):
            raise bad(f"{tensor.name}: an element ends after the tensor does")
        found.append(content[start:at])
    return found


def binary(tensor: Tensor, rest: bytes) -> bytes:
    """What follows the JSON. Raises RefusedError where it is not as long as is said."""
    size = tensor.parameters.binary_data_size
    if size is None:
        raise bad(f"{tensor.name}: neither `data` nor `binary_data_size`")
    if size != len(rest):
        raise bad(f"{tensor.name}: {len(rest):,} bytes follow the JSON; `binary_data_size` is {size:,}")
    return rest


def parts(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    """The JSON of a request and what follows it. Raises RefusedError."""
    if length is None:
        return body, b""
    if not (length.isascii() and length.isdigit() and len(length) <= LONGEST and int(length) <= len(body)):
        raise bad(f"{HEADER}: {length[:LONGEST]!r}; expected a number of bytes up to {len(body):,}")
    return body[: int(length)], body[int(length) :]


def answered(asked: Inference, found: dict[str, np.ndarray], version: str) -> Response:
    """The outputs that were asked for, all if none was. Raises RefusedError for unknown ones."""
    wanted = asked.outputs or [Output(name=name) for name in found]
    if unknown := [one.name[:80] for one in wanted if one.name not in found]:
        raise bad(f"output {unknown[0]!r}; expected {', '.join(found)}")
    outputs, tails = [], []
    for one in wanted:
        values = found[one.name]
        tensor = {"name": one.name, "datatype": DATATYPES[values.dtype.kind], "shape": list(values.shape)}
        if one.parameters.binary_data or asked.parameters.binary_data_output:
            tails.append(raw(values))
            tensor["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            flat = values.reshape(-1).tolist()
            tensor["data"] = [value.decode() for value in flat] if values.dtype == object else flat
        outputs.append(tensor)
    content = {"model_name": NAME, "model_version": version, "outputs": outputs}
    content |= {"id": asked.id} if asked.id is not None else {}
    if not tails:
        return JSONResponse(content)
    head = json.dumps(content).encode()
    return Response(head + b"".join(tails), media_type="application/octet-stream", headers={HEADER: str(len(head))})


DATATYPES = {"f": "FP64", "b": "BOOL", "O": "BYTES"}
"""By the kind of a numpy dtype."""


def raw(values: np.ndarray) -> bytes:
    if values.dtype == object:
        return b"".join(len(value).to_bytes(LENGTH, "little") + value for value in values.reshape(-1))
    return values.tobytes()
