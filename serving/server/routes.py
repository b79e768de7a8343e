"""The API."""

import base64
import binascii
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from serving.server import answers
from serving.server.refusals import RefusedError
from serving.server.service import Said, Service
from serving.server.settings import MEBIBYTE

FORM, JSON = "multipart/form-data", "application/json"
REFUSALS: dict[int | str, dict[str, Any]] = {
    status.value: {"model": answers.Error, "description": status.phrase}
    for status in (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
}
BINARY = {"type": "string", "contentMediaType": "application/octet-stream"}


def form(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """What a route takes in a form, for the OpenAPI document."""
    return {FORM: {"schema": {"type": "object", "properties": {name: schema}, "required": [name]}}}


ONE = {
    **form(BINARY, "image"),
    JSON: {"schema": answers.Base64Image.model_json_schema()},
}
Votes = Annotated[bool, Query(description="also what each backbone says by itself")]
SEVERAL = form({"type": "array", "items": BINARY, "minItems": 1}, "images")


def router(service: Service) -> APIRouter:
    routes = APIRouter()
    settings = service.settings

    def said(found: Said, votes: bool) -> answers.Prediction:
        return answers.prediction(service.bundle, found, service.version, votes)

    @routes.post("/predict", responses=REFUSALS, openapi_extra={"requestBody": {"content": ONE, "required": True}})
    async def predict(request: Request, votes: Votes = False) -> answers.Prediction:
        """Classify one image: a form with the file `image`, or JSON with `image` in base64."""
        if kind(request) == JSON:
            content = of_json(await request.body())
        else:
            ((_, content),) = await files(request, "image", 1, settings.body * MEBIBYTE)
        return said(await service.classify(content), votes)

    @routes.post(
        "/predict/batch", responses=REFUSALS, openapi_extra={"requestBody": {"content": SEVERAL, "required": True}}
    )
    async def predict_batch(request: Request, votes: Votes = False) -> answers.Predictions:
        """Classify several images: a form with files, all named `images`. What cannot be read is said of each alone."""
        came = await files(request, "images", settings.files, settings.body * MEBIBYTE)
        found = await service.classify_each([content for _, content in came])
        return answers.Predictions(
            files=[
                answers.File(name=name, error=one.message)
                if isinstance(one, RefusedError)
                else answers.File(name=name, prediction=said(one, votes))
                for (name, _), one in zip(came, found, strict=True)
            ]
        )

    return routes


def watching(service: Service) -> APIRouter:
    """For those who watch over the server."""
    routes = APIRouter()

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "alive"}

    @routes.get("/readyz", responses={503: {"model": answers.Error}})
    async def readyz() -> dict[str, str]:
        """Whether it answers for images: after its warm-up, until it ends."""
        if not service.ready:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the networks are being loaded", retry_after=1)
        return {"status": "ready"}

    @routes.get("/model")
    async def model() -> dict[str, Any]:
        """Which bundle answers, and how well it does."""
        return answers.model(service.bundle, service.version)

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """What was counted, for Prometheus."""
        return Response(service.measures.text(), media_type="text/plain; version=1.0.0; charset=utf-8")

    return routes


def kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def of_json(body: bytes) -> bytes:
    """The file in `{"image": "<base64>"}`. Raises RefusedError."""
    try:
        encoded = answers.Base64Image.model_validate_json(body).image
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise RefusedError(HTTPStatus.BAD_REQUEST, f'the body is not {{"image": "<base64>"}}: {why}') from None
    return unbased(encoded)


def unbased(encoded: str) -> bytes:
    """What a text in base64 holds; that of a data URL too. Raises RefusedError."""
    _, _, tail = encoded.rpartition(",") if encoded.startswith("data:") else ("", "", encoded)
    try:
        return base64.b64decode(tail, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"`image` is no base64: {error}") from None


async def files(request: Request, name: str, most: int, body: int) -> Sequence[tuple[str, bytes]]:
    """The files of a form that have this name, with their own names. Raises RefusedError."""
    if kind(request) != FORM:
        came = request.headers.get("content-type", "no content type")
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body is {came[:80]}; expected {FORM}")
    try:
        async with request.form(max_files=most, max_fields=most, max_part_size=body) as found:
            parts = [part for part in found.getlist(name) if isinstance(part, UploadFile)]
            contents = [(printable(part.filename or ""), await part.read()) for part in parts]
    except HTTPException as error:  # what Starlette makes of a form that its parser refuses
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the form cannot be read: {error.detail}") from None
    except UnicodeError as error:  # by whatever codec the form names
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the form cannot be read: {error}") from None
    if not contents or (most == 1 and len(contents) > 1):
        what = "one file" if most == 1 else "files"
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the form has {len(contents)} files named {name}; expected {what}")
    return contents


def printable(name: str) -> str:
    """A name with what is half a character in UTF-16 replaced, which no JSON may hold."""
    return name.encode("utf-8", "replace").decode()
