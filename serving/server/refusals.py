"""Every answer that is none: JSON that says what came and what was expected."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from stages.running.errors import some


class RefusedError(Exception):
    """Why there is no answer."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


def response(refusal: RefusedError) -> JSONResponse:
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    return answer(refusal.status, refusal.message, headers)


def answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


def invalid(error: RequestValidationError) -> str:
    """What a body or a parameter is not, in words."""
    found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return some(found, between="; ")


def add(app: FastAPI) -> None:
    """Let the application answer so."""

    async def refused(_: Request, error: Any) -> JSONResponse:
        return response(error)

    async def unknown(_: Request, error: Any) -> JSONResponse:
        return answer(error.status_code, str(error.detail), error.headers)

    async def wrong(_: Request, error: Any) -> JSONResponse:
        return answer(HTTPStatus.UNPROCESSABLE_ENTITY, invalid(error))

    async def failed(_: Request, error: Exception) -> JSONResponse:
        """Its trace is in the log."""
        return answer(HTTPStatus.INTERNAL_SERVER_ERROR, "this server failed at the request; its log says why")

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(RequestValidationError, wrong)
    app.add_exception_handler(Exception, failed)
