"""Small result files: JSON and CSV, equal content in equal bytes, all of a step's put in place together."""

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from stages.running import atomic
from stages.running.errors import UserError

T = TypeVar("T")


@runtime_checkable
class Table(Protocol):
    """A table of pandas, which is not imported here: `export` writes JSON alone."""

    def to_csv(self, *, index: bool, float_format: str, lineterminator: str) -> str: ...


def write(folder: Path, files: Mapping[str, Table | Mapping[str, Any]]) -> None:
    """Write each table as CSV and each mapping as JSON; none takes its place before all are complete."""
    with atomic.replace(*(folder / name for name in files)) as parts:
        for part, content in zip(parts, files.values(), strict=True):
            part.write_text(text(content), encoding="utf-8")


def read(path: Path, stage: str, parse: Callable[[Any], T]) -> T:
    """What `parse` makes of a JSON file. Raises UserError, naming the stage that writes it, where it is missing or does
    not hold what `parse` needs."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} is not there; run `dvc repro {stage}`") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); run `dvc repro {stage}` to write it anew") from None


def keep_only(folder: Path, names: Collection[str]) -> list[str]:
    """Delete the folders in `folder` that have none of these names, so that DVC records none of them; returns which."""
    strangers = [each for each in sorted(folder.glob("*")) if each.is_dir() and each.name not in names]
    for each in strangers:
        shutil.rmtree(each)
    return [each.name for each in strangers]


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """With the SHA-256 of the rest under `sha256`, by which a number that was damaged shows."""
    rest = json.loads(json.dumps({name: value for name, value in content.items() if name != "sha256"}))
    return rest | {"sha256": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def unsealed(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raises ValueError for a content whose SHA-256 is another."""
    if content["sha256"] != sealed(content)["sha256"]:
        raise ValueError("its sha256 is another than that of its content, which was damaged or changed")
    return content


def text(content: Table | Mapping[str, Any]) -> str:
    """Numbers in tables have six digits, those in JSON all of theirs."""
    if isinstance(content, Mapping):
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return content.to_csv(index=False, float_format="%.6g", lineterminator="\n")
