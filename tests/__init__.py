"""The run-time type check of the tests: beartype, with int accepted for float as in every type checker."""

import sys
from collections.abc import Callable
from typing import Any, cast

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception
from jaxtyping import install_import_hook, jaxtyped


def check_types() -> None:
    """From here on, every array that crosses the border of a function of ours is checked against its declared type."""
    # The first check imports JAX, if it can, to shorten JAX's tracebacks: three seconds, and a second framework.
    hidden = "jax" not in sys.modules
    if hidden:
        sys.modules["jax"] = cast(Any, None)
    jaxtyped(lambda: None, typechecker=None)
    if hidden:
        del sys.modules["jax"]
    install_import_hook("stages", "tests.checked")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its arguments and result checked at each call; one that names `Self` stays as it is."""
    try:
        return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)
    except BeartypeDecorHintPep673Exception:  # beartype resolves Self only where it decorates the whole class
        return function
