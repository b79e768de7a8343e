"""The templates of the report, all with the same settings."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from stages.reporting import tables

HELPERS = {
    "percent": tables.percent,
    "interval": tables.interval,
    "spanned": tables.spanned,
    "points": tables.points,
    "escaped": tables.escaped,
}
"""What every template may call."""


def load(name: str, *, autoescape: bool) -> Template:
    """One of this folder. `autoescape`: every name from outside becomes text in HTML; Markdown calls `escaped`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= HELPERS
    environment.filters |= HELPERS
    return environment.get_template(name)
