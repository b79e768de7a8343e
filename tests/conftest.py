"""How the tests run: one thread each, arrays checked at every border, and a group of files on its own if asked for."""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

# A tenth of the time went into looking for cycles among what libraries keep for ever.
gc.set_threshold(100_000, 20, 100)

# Two workers fill two cores, and threads that share a core mostly wait for each other. Equal numbers of threads are
# also what makes equal bits. Libraries read these when they are imported.
for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")

from tests.watching import sitecustomize as watching  # noqa: E402  (before all that it is to watch)

WATCHED = str(Path(watching.__file__).parent)
if WATCHED not in os.environ.get("PYTHONPATH", "").split(os.pathsep):  # of a worker it is there already
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [WATCHED, os.environ.get("PYTHONPATH")]))

from tests import check_types  # noqa: E402

check_types()

from tests import groups  # noqa: E402

# The same examples in every run of a day; `make test-all` draws others, and many more: --hypothesis-profile=thorough.
settings.register_profile("daily", max_examples=25, derandomize=True, deadline=None, database=None)
settings.register_profile("thorough", max_examples=300, deadline=None, database=None, print_blob=True)
settings.load_profile("daily")
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "foldstack-hypothesis")  # none in the repository


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--group", choices=groups.NAMES, help="only the test files that import or start the like")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of other groups before they are imported: a marker would come too late."""
    wanted = config.getoption("group")
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if wanted and is_test and groups.of(collection_path) != wanted else None


@pytest.fixture(scope="session", autouse=True)
def _nothing_unpickled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """By no process of this run, were its error swallowed: tests/watching/sitecustomize.py."""
    log = tmp_path_factory.mktemp("watched") / "log"
    os.environ[watching.LOG] = str(log)
    yield
    assert not log.exists(), log.read_text()


@pytest.fixture(scope="session", autouse=True)
def _one_framework(request: pytest.FixtureRequest) -> Iterator[None]:
    """A group's process has that group's framework alone: they fight over memory, threads and the order of imports.

    So nothing that the group `plain` imports, all of `stages` but the recipes, brings a framework with it.
    """
    yield
    if wanted := request.config.getoption("group"):
        assert groups.loaded(sys.modules) <= {wanted}


@pytest.fixture
def copy(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the `repository` that a file's tests share, for a test that changes it; the test runs in it."""
    shutil.copytree(repository, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of every batch that a frozen network, or its front, computes features of, as it goes."""
    from stages.backbones.pytorch.shared import features

    sizes: list[int] = []
    batch = features.Extractor.batch

    def counted(self: Any, images: Any) -> Any:
        sizes.append(len(images))
        return batch(self, images)

    monkeypatch.setattr(features.Extractor, "batch", counted)
    return sizes
