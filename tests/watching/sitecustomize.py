"""Refuses to unpickle what comes from a file, and all else that runs code found in data, in this process.

Python imports it as it starts, wherever this folder is on PYTHONPATH; tests/conftest.py puts it there, so that every
process of every test is watched. Pickles are seen as they look for what they name (`pickle.find_class`): so does
`numpy.load(allow_pickle=True)`, `joblib.load` and `torch.load(weights_only=False)`. Keras' lambda layers are code that
is read by `marshal`. What a pickle of numbers and text alone holds names nothing, and runs nothing.
"""

import os
import sys
from types import FrameType

EVENTS = ("pickle.find_class", "marshal.loads", "marshal.load")
LOG = "FOLDSTACK_UNPICKLED"
"""The environment names a file that holds a line for each."""
OURSELVES = (
    "/multiprocessing/",  # between processes of a pool, by pipes
    "/concurrent/futures/process.py",
    "/loky/",
    "/ray/",  # between the processes of a cluster
    "/diskcache/core.py",  # what DVC itself remembers of files
)
"""Where pickles are read that our own processes, or DVC's, have written for one another."""
CODE = ("<frozen importlib._bootstrap_external>", "<frozen zipimport>", "_pytest/assertion/rewrite.py", "pkgutil.py")
"""Where compiled modules are read."""
MACHINERY = ("/pickle.py", "/_compat_pickle.py")
"""The module itself, where it is written in Python."""


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event not in EVENTS:
        return
    frame: FrameType | None = sys._getframe(1)
    while frame and frame.f_code.co_filename.endswith(MACHINERY):
        frame = frame.f_back
    place = frame.f_code.co_filename.replace(os.sep, "/") if frame else "?"
    if any(part in place for part in (OURSELVES if event == "pickle.find_class" else CODE)):
        return
    what = " ".join(str(each)[:60] for each in arguments) if event == "pickle.find_class" else "code"
    line = f"{place}:{frame.f_lineno if frame else 0} unpickles {what}"
    if log := os.environ.get(LOG):
        with open(log, "a", encoding="utf-8") as file:  # noqa: PTH123  (imports as little as can be)
            file.write(f"{line}\n")
    raise RuntimeError(line)


if not getattr(sys, "_foldstack_watched", False):
    sys._foldstack_watched = True  # type: ignore[attr-defined]
    sys.addaudithook(watch)
