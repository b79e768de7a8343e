"""`python -m serving.server models/bundle`."""

import ctypes
from contextlib import suppress

import uvicorn
from PIL import PngImagePlugin
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from serving.bundle import Bundle
from serving.commands import command
from serving.server.app import create
from serving.server.connections import protocol
from serving.server.settings import Settings
from stages.running.errors import UserError

TEXT = 1 << 20
"""Bytes of text that a PNG file may have."""
MAPPED = 1 << 20
"""Bytes from which a block of memory is mapped on its own."""


def settings() -> Settings:
    """From flags and the environment. Raises UserError."""
    try:
        return CliApp.run(Settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}, not {first['input']!r}") from None
    except SettingsError as error:
        raise UserError(str(error)) from None


def hand_memory_back() -> None:
    """What a large image took goes back when it is freed; after the first one, glibc would keep what the next take."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(-3, MAPPED)  # M_MMAP_THRESHOLD


@command
def main() -> None:
    given = settings()
    hand_memory_back()
    # A text of half a megabyte may become hundreds, which `split` bears for the sake of scanners' histories.
    PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = TEXT, TEXT
    app = create(Bundle.load(given.bundle, given.threads, given.cascade, given.student or None), given)
    uvicorn.run(
        app,
        host=given.host,
        port=given.port,
        http=protocol(given.patience),
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=given.drain,
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main()
