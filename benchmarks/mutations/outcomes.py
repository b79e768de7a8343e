"""What comes of a file, as the process that reads it says it to the one that counts."""

from dataclasses import dataclass
from pathlib import Path

READ, REFUSED, FAULT = "read", "refused by", "fault"
SECONDS = 5.0
"""Of the processor that a case may take."""


@dataclass(frozen=True)
class Outcome:
    name: str
    """Kind and file."""
    found: str
    """READ, REFUSED with the function and the type of reason, or FAULT with the exception."""
    seconds: float
    """Of the processor."""

    @property
    def is_fault(self) -> bool:
        return self.found.startswith(FAULT) or self.seconds > SECONDS


def sort(found: str) -> str:
    """An outcome without what only one file says."""
    return found.partition(":")[0]


def corpus(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
