"""The device that `FOLDSTACK_DEVICE` names, for every framework in the same words."""

import os

from stages.running.errors import UserError

VARIABLE = "FOLDSTACK_DEVICE"


def gpu(count: int, library: str) -> int | None:
    """Which of the CUDA GPUs that a library sees is meant: `cuda` or `cuda:1`, the first where nothing is said.

    None is the CPU. Raises UserError for any other name but `cpu`, and for a GPU that is not there.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return 0 if count else None
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or not (number or "0").isdecimal():
        raise UserError(f"{VARIABLE}={name} is no device; expected cpu, cuda or cuda:<number>")
    if kind == "cpu":
        return None
    if int(number or 0) >= count:
        raise UserError(f"{VARIABLE}={name}, but {library} sees {count} CUDA GPUs; expected cpu")
    return int(number or 0)
