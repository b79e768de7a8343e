"""Small result files: JSON and CSV, equal content in equal bytes, all of a step's put in place together."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd


def write(folder: Path, files: Mapping[str, pd.DataFrame | Mapping[str, Any]]) -> None:
    """Write each table as CSV and each mapping as JSON; none takes its place before all are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: folder / f".{name}.part" for name in files}
    for name, content in files.items():
        parts[name].write_text(text(content), encoding="utf-8")
    for name, part in parts.items():
        part.replace(folder / name)


def text(content: pd.DataFrame | Mapping[str, Any]) -> str:
    """Numbers in tables have six digits, those in JSON all of theirs."""
    if isinstance(content, pd.DataFrame):
        return content.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
