"""The one exception that speaks to the user rather than to us, and the words of libraries in one line."""

import errno
import os
from collections.abc import Sequence

FULL = (errno.ENOSPC, errno.EDQUOT)


class UserError(ValueError):
    """Something that came from outside is wrong: a parameter, an image, a file, the network.

    The message says where, what came and what was expected. A step that meets one prints the message alone and
    exits with status 1; every other exception is a fault of ours and keeps its traceback.
    """


def gist(error: BaseException) -> str:
    """The first line of a library's message, and the second where the first ends in a colon; at most 160 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return line if len(line) <= 160 else f"{line[:157]}..."


def is_full_disk(error: BaseException) -> bool:
    """Whether it says that a disk is full: an OSError by its number, what other libraries raise by the system's words.

    safetensors, written in Rust, raises a SafetensorError that is no OSError.
    """
    number = error.errno if isinstance(error, OSError) else None
    return number in FULL or any(os.strerror(each) in str(error) for each in FULL)


def some(names: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return between.join(names[:most]) + more
