"""The page of the API at /docs: Swagger UI, served from here, and allowed to ask nobody else."""

import base64
import hashlib
import re

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

PATH, FILES = "/docs", "/docs/static"
POLICY = (
    "default-src 'none'; script-src 'self' {start}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI writes its styles into the page; of scripts inside it only the one that starts Swagger UI may run."""


def add(app: FastAPI) -> None:
    """Let the application answer so. Of the package that carries the files nothing is imported."""
    found = page(app)

    @app.get(PATH, include_in_schema=False)
    async def documentation() -> HTMLResponse:
        return found

    app.mount(FILES, StaticFiles(packages=[("fastapi_offline", "static")]))


def page(app: FastAPI) -> HTMLResponse:
    made = get_swagger_ui_html(
        openapi_url=app.openapi_url or "",
        title=app.title,
        swagger_js_url=f"{FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{FILES}/swagger-ui.css",
        swagger_favicon_url=f"{FILES}/favicon.png",
    )
    (script,) = re.findall(rb"<script>(.*?)</script>", bytes(made.body), re.DOTALL)
    start = base64.b64encode(hashlib.sha256(script).digest()).decode()
    made.headers["content-security-policy"] = POLICY.format(start=f"'sha256-{start}'")
    return made
