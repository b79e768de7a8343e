"""Image files as the arrays that a bundle answers for, decoded as `split` decodes them."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError

from stages.images.decoding import Wanted, decode
from stages.running.errors import UserError, some

Picture = str | Path | bytes
"""A file, by its path or by its bytes."""

# Of metadata that change no pixel. Once for all images: `catch_warnings` around each is not safe where threads decode.
warnings.filterwarnings("ignore", module="PIL")


class UnreadableError(Exception):
    """Why a picture cannot be read, in words."""


def opened(picture: Picture, wanted: Wanted) -> np.ndarray:
    """uint8 [size, size, 3]. Raises UnreadableError."""
    content = b""
    try:
        content = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        return decode(content, wanted)[0]
    except UnidentifiedImageError:
        raise UnreadableError(f"no {', '.join(wanted.formats)} image" if content else "0 bytes") from None
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from None
    except Exception as error:  # Pillow's decoders fail on broken files with a dozen types of exception
        raise UnreadableError(f"{type(error).__name__}: {error}") from None


def decoded(pictures: Sequence[Picture], wanted: Wanted) -> np.ndarray:
    """All of them, uint8 [n, size, size, 3]. Raises UserError that names those that cannot be read."""
    images, wrong = [], []
    for number, picture in enumerate(pictures):
        try:
            images.append(opened(picture, wanted))
        except UnreadableError as error:
            wrong.append(f"{f'image {number}' if isinstance(picture, bytes) else picture}: {error}")
    if wrong:
        raise UserError("cannot be read: " + some(wrong, between="; "))
    return np.stack(images) if images else np.zeros((0, wanted.size, wanted.size, 3), np.uint8)
