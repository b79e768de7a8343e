"""While the tests run, every array that crosses a function's border is checked against its declared shape and dtype."""

import pytest
from jaxtyping import install_import_hook

install_import_hook("stages", "tests.checked")


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """One worker runs all tests of a file, which share what they prepare; of the contract's, all of one block."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        block = callspec.params.get("claim") and callspec.params["name"] if callspec else None
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{block}" if block else item.path.stem))
