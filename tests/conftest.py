"""While the tests run, every array that crosses a function's border is checked against its declared shape and dtype."""

import pytest
from jaxtyping import install_import_hook

install_import_hook("stages", "tests.checked")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """One worker runs all tests of a file, which share what they prepare; of the contract's, all of one block."""
    for item in items:
        values = item.callspec.params if hasattr(item, "callspec") else {}
        block = f"-{values['name']}" if {"name", "claim"} <= set(values) else ""
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}{block}"))
