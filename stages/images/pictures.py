"""Images as they stand in a page: no larger than is looked at, each part of the page itself."""

import base64
import io

import numpy as np
from PIL import Image

from stages.images.arrays import Images, Rows
from stages.images.dataset import Dataset

SMALL = 32
"""Height up to which images are shown as they are, pixel by pixel."""


def thumbnails(dataset: Dataset, rows: Rows, side: int) -> Images:
    """The images of these rows, smaller where they are larger than `side`."""
    images = dataset.take(rows)
    h, w = images.shape[1:3]
    if max(h, w) <= side or not len(images):
        return images
    size = (max(1, round(w * side / max(h, w))), max(1, round(h * side / max(h, w))))
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) for image in images])


def uri(images: Images) -> str:
    """Images side by side as a data URI: small ones as they are, of large ones a JPEG, a tenth of the size."""
    file, kind = io.BytesIO(), "png" if images.shape[1] <= SMALL else "jpeg"
    picture = Image.fromarray(np.concatenate(list(images), axis=1))
    picture.save(file, format=kind, optimize=True, **({"quality": 85} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
