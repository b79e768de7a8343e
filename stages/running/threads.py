"""How many threads a process computes with: it changes the last bits of what is computed, and so it is a parameter.

A block says `threads: 1`, which gives the same bits on a machine with more cores, beside another backbone that trains
at the same time, and in every executor. Where it is left out, libraries take the cores that there are.
"""

import os
from collections.abc import Mapping
from typing import Any

from stages.running.errors import UserError

NAMES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "NPROC",  # of JAX on a processor
)
MOST = 1024
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}
"""So many rounds, tens of microseconds: as fast as spinning where nothing else runs, by measurement."""


def of(block: Mapping[str, Any], *, place: str) -> int | None:
    """What a block asks for. Raises UserError for what is no whole number from 1 to MOST, and not left out."""
    found = block.get("threads")
    if found is not None and (type(found) is not int or not 1 <= found <= MOST):
        raise UserError(f"params: {place}.threads: got {found!r}; expected a whole number from 1 to {MOST}, or null")
    return found


def use(number: int | None) -> None:
    """To be called before the libraries are imported, which read it then; child processes have it too."""
    if number is not None:
        os.environ.update(environment(number))


def environment(number: int | str) -> dict[str, str]:
    return dict.fromkeys(NAMES, str(number))


def waiting() -> dict[str, str]:
    """How OpenMP's threads are to wait for one another: GNU's spin for a moment and then sleep, others sleep at once.

    Beside another process that takes a core they would spin for most of the time (docs/cluster.md). What the
    environment says of OMP_WAIT_POLICY stands.
    """
    given = {name: value for name in WAITING if (value := os.environ.get(name))}
    return given if "OMP_WAIT_POLICY" in given else WAITING | given
