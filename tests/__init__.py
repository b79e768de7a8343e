"""The run-time type check of the tests: beartype, with int accepted for float as in every type checker."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its arguments and result checked at each call; one that names `Self` stays as it is."""
    try:
        return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)
    except BeartypeDecorHintPep673Exception:  # beartype resolves Self only where it decorates the whole class
        return function
