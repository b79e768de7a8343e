"""The sources of images by the name they have in `data.source`: each is the module of that name in this package."""

import importlib

from stages.images.collection import Collection, Data


def collect(data: Data) -> Collection:
    """The images that `data` asks for. Raises UserError for what is missing or broken.

    Imports the one source that is asked for: what downloads and decodes is of no use to the others.
    """
    return importlib.import_module(f"stages.images.{data.source}").collect(data)
