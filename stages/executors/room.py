"""How many backbones `make repro` trains at once: as many as there are cores for the `threads` that their blocks name.

One, where a block leaves its threads open and so takes every core, and where there is a GPU, which one of them fills.
"""

from collections.abc import Mapping
from typing import Any

import loky

from stages.executors.process import gpus
from stages.running import parameters, threads
from stages.running.errors import UserError


def room(blocks: Mapping[str, Mapping[str, Any]], cores: int) -> int:
    """`blocks`: at least one, as they stand under `backbones`. Raises UserError for threads that are none."""
    taken = [threads.of(block, place=f"backbones.{name}") or cores for name, block in blocks.items()]
    return max(1, min(cores // max(taken), len(taken)))


def main() -> None:
    try:
        print(1 if gpus() else room(parameters.read()["backbones"], loky.cpu_count()))
    except (UserError, LookupError, TypeError, AttributeError):
        print(1)  # parameters that are not right: the first stage says what is wrong with them


if __name__ == "__main__":
    main()
