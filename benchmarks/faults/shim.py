"""The library that lets calls fail, and what processes that loaded it share."""

import ctypes
import mmap
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stages.running.errors import UserError

SOURCE = Path(__file__).with_name("shim.c")
KINDS = ("read", "open", "write", "fsync", "rename")
FULL = "full"
"""In place of a kind: all but `read`, from the N-th on."""
NONE = -1


class State(ctypes.Structure):
    """`struct state` of shim.c."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("error", ctypes.c_int),
        ("n", ctypes.c_long),
        ("counts", ctypes.c_long * (len(KINDS) + 1)),
        ("hits", ctypes.c_long),
        ("where", ctypes.c_char * 512),
    )

    @classmethod
    def shared(cls, path: Path) -> "State":
        """That of the processes that begin with `environment(...)` of this file, which is made where it is not."""
        if not path.exists():
            path.write_bytes(bytes(cls(kind=NONE)))
        with path.open("r+b") as file:
            return cls.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(cls)))

    def set(self, kind: str | None = None, error: int = 0, n: int = 0) -> None:
        """What is to fail; all counts begin anew."""
        ctypes.memset(ctypes.byref(self), 0, ctypes.sizeof(self))
        self.kind, self.error, self.n = NONE if kind is None else (*KINDS, FULL).index(kind), error, n

    def stop(self) -> None:
        """Nothing fails from now on; what was counted stays."""
        self.kind = NONE

    def counted(self) -> dict[str, int]:
        return dict(zip((*KINDS, FULL), self.counts, strict=True))


def compiler() -> str | None:
    return shutil.which("cc")


def build(folder: Path) -> Path:
    """The library. Raises UserError where there is no compiler."""
    found, library = compiler(), folder / "shim.so"
    if found is None:
        raise UserError("cc is not there; expected a C compiler, such as that of Debian's package gcc")
    subprocess.run([found, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def environment(library: Path, state: Path, under: Sequence[Path]) -> dict[str, str]:
    """In which a process, and its children, take note of files below these folders, which have no links in them."""
    State.shared(state)
    folders = os.pathsep.join(str(folder.resolve()) for folder in under)
    return {"LD_PRELOAD": str(library), "FAULTS_STATE": str(state), "FAULTS_UNDER": folders}
