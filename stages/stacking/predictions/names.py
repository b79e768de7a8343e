"""Who may be stacked: the backbones that are trained here, and predictions made elsewhere."""

from collections.abc import Mapping
from typing import Any

EXTERNAL = "external"
"""In place of a recipe, and the name of their mapping in the section `stack`."""


def recipes(content: Mapping[str, Any]) -> dict[str, str]:
    """The recipe of every backbone by its name, in the order of params.yaml, predictions made elsewhere last."""
    trained = {
        name: f"{block['framework']}/{block['recipe']}" for name, block in (content.get("backbones") or {}).items()
    }
    return trained | dict.fromkeys((content.get("stack") or {}).get(EXTERNAL) or {}, EXTERNAL)
