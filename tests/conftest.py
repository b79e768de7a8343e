"""While the tests run, every array that crosses a function's border is checked against its declared shape and dtype."""

from jaxtyping import install_import_hook

install_import_hook("stages", "tests.checked")
