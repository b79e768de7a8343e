"""The one exception that speaks to the user rather than to us, and the words of libraries in one line."""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence

FULL = (errno.ENOSPC, errno.EDQUOT)
LIMITS = (errno.EFBIG, errno.EMFILE, errno.ENFILE)
REFUSALS = (*FULL, *LIMITS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says of a disk that is full or fails, of limits, and of files that may not be touched."""
NO_MEMORY = (
    "OutOfMemoryError",  # PyTorch, of a GPU
    "DefaultCPUAllocator",  # PyTorch, of the machine
    "ALLOC_FAILED",  # cuBLAS and cuDNN
    "ResourceExhaustedError",  # TensorFlow
    "RESOURCE_EXHAUSTED",  # JAX
    "CUDA_ERROR_OUT_OF_MEMORY",
    "std::bad_alloc",
)
"""What says that memory ran out, in the name or the message of an error; no framework is imported here."""
LOWER = ("batch_size", "image_size", "front_views")
"""The parameters of a block that most decide how much memory it takes."""


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


def refusal(error: BaseException) -> int | None:
    """The number, of REFUSALS, of what the system refused: by that of an OSError, of other libraries by its words.

    What safetensors, written in Rust, and onnxruntime raise is no OSError. None for every other mistake.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in REFUSALS else None
    said = str(error)
    own = {each: (os.strerror(each), f"system error number {each}") for each in REFUSALS}
    return next((each for each, (words, of_onnx) in own.items() if words in said or said.endswith(of_onnx)), None)


def refused(error: BaseException) -> str | None:
    """What the system refused in one line, and what to do; None for every other mistake.

    A file that is not there too: safetensors says so of every one that it cannot open.
    """
    number, name = refusal(error), getattr(error, "filename", None)
    if isinstance(error, FileNotFoundError):
        return f"{gist(error)}; see to it, or let `dvc repro` make it, and run again"
    if number is None:
        return None
    if number in FULL:
        where = f" while writing {name}" if name else ""
        return f"the disk is full{where}; free some space and run again, finished work is kept"
    return f"{f'{name}: ' if name else ''}{os.strerror(number)}; mend that and run again, finished work is kept"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that a device or the machine has no more memory, whichever library says it."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(words in f"{type(error).__name__}: {error}" for words in NO_MEMORY)


@contextlib.contextmanager
def memory_named(where: str, params: object) -> Iterator[None]:
    """Raises UserError that says what to lower of these parameters where memory runs out inside."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):
            raise
        held = {name: getattr(params, name) for name in LOWER if hasattr(params, name)}
        named = [f"{name} ({value or 'as stored'})" for name, value in held.items() if value != 0]
        raise UserError(
            f"{where}: memory ran out ({gist(error)}); lower {', '.join(named)} in its block of params.yaml"
        ) from None


def some(names: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return between.join(names[:most]) + more
