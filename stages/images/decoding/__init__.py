"""An image file's bytes as a square RGB array. Imports numpy and Pillow alone: whoever serves a bundle decodes so too.

What an image becomes: its first frame; upright by its EXIF orientation; transparent parts white; 16-bit grey scaled to
8 bits by a value that the caller gives; CMYK, grey and palettes as RGB; the centre square scaled to the wanted size,
bicubic with antialiasing. A JPEG that is much larger is decoded at a fraction of its size, never below twice that.
"""

from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

AVIF = find_spec("PIL._avif") is not None
"""Whether Pillow was built with it."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", *(["AVIF"] if AVIF else []))
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    *([".avif"] if AVIF else []),
)
WHITE = 65535
"""The largest value of 16-bit grey."""

# What Pillow takes for attacks: large images, for which there is a parameter here, and long texts, such as the history
# of all that was done to a picture.
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28, 1 << 29


@dataclass(frozen=True)
class Wanted:
    """What images are to become."""

    size: int
    """Pixels, height and width."""
    max_megapixels: int = 180
    white: int = WHITE
    """The value of 16-bit grey that becomes 255; larger ones too."""
    formats: tuple[str, ...] = FORMATS


class TooLargeError(Exception):
    """An image has more pixels than are wanted."""


def decode(content: bytes, wanted: Wanted) -> tuple[np.ndarray, int | None]:
    """A file's bytes as uint8 [size, size, 3], and the largest value where it is 16-bit grey.

    Raises whatever Pillow raises for what is no whole image.
    """
    size, peak = wanted.size, None
    with Image.open(BytesIO(content), formats=wanted.formats) as image:
        megapixels = image.width * image.height / 1e6
        if megapixels > wanted.max_megapixels:
            raise TooLargeError(f"{image.width:,} x {image.height:,} pixels, {megapixels:,.0f} megapixels")
        image.draft(None, (2 * size, 2 * size))
        image.load()
        with suppress(Exception):  # an EXIF block that cannot be read spoils no image: it stays as it is
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode[0] in "IF":  # I, I;16, I;16B and F: one channel of more than 8 bits
            grey, peak = scale_grey(image, wanted.white)
            upright = grey.convert("RGB")
        else:
            upright = to_rgb(image)
    if upright.size != (size, size):
        upright = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(upright), peak


def scale_grey(image: Image.Image, white: int) -> tuple[Image.Image, int]:
    """Grey of 16 bits as 8, rounded, and its largest value. Raises ValueError for what has no such range."""
    deep = np.asarray(image)
    low, peak = deep.min(), deep.max()
    if image.mode == "F" or low < 0 or peak > WHITE:
        raise ValueError(f"grey values from {low:g} to {peak:g}; expected whole ones from 0 to {WHITE}")
    scaled = (np.minimum(deep, white).astype(np.uint32) * 255 + white // 2) // white
    return Image.fromarray(scaled.astype(np.uint8)), int(peak)


def to_rgb(image: Image.Image) -> Image.Image:
    """Pillow's own conversion paints transparent parts in whatever colour lies below."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
