"""Reading `params.yaml`: every block checked, every mistake named with its place and the closest valid name."""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.running.errors import UserError

PATH = Path("params.yaml")
Model = TypeVar("Model", bound=BaseModel)
MOST = 50
"""Known names that an error lists."""
SECTIONS = ("seed", "data", "split", "backbones", "students", "stack", "evaluate", "bundle", "search")


class Block(BaseModel):
    """A block of parameters: immutable, no unknown names, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}
    """What to write instead, by the name that a parameter had once."""

    def save(self, path: Path) -> None:
        """As JSON."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def restore(cls, path: Path) -> Self:
        """What `save` wrote."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))


class Loader(yaml.SafeLoader):
    """Reads numbers and truth values as DVC does, by YAML 1.2: 1e-3 is a number, 010 is ten, `no` is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own name)
        first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in ("bool", "int", "float")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)", "-+0123456789"),
    "float": (
        r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9_]+([eE][-+]?[0-9]+)?"
        r"|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
}
"""What is read as what: pattern and first characters."""


def whole_number(loader: Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    return int(text, 0) if any(letter in text for letter in "box") else int(text)


for _name, (_pattern, _first) in SCALARS.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^({_pattern})$"), list(_first))
Loader.add_constructor("tag:yaml.org,2002:int", whole_number)


def read(path: Path = PATH) -> dict[str, Any]:
    """The whole file as a mapping. Raises UserError for a file that is missing, broken or has an unknown section."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; run from the root of the repository") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not in UTF-8; save it so") from None
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError) as error:  # of some dates and tags
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}; expected the sections {', '.join(SECTIONS)}")
    for name in content:
        if name not in SECTIONS:
            raise UserError(f"{path}: unknown section {name!r}{closest(name, SECTIONS)}")
    return content


def section(content: Mapping[str, Any], name: str, model: type[Model]) -> Model:
    """One section of the file, checked against its model; a section left out has its defaults."""
    return check(content.get(name) or {}, model, place=name)


def seed(content: Mapping[str, Any]) -> int:
    """The seed that everything random is derived from: a whole number, 0 or more."""
    value = content.get("seed", 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"params: seed: got {value!r}; expected a whole number, 0 or more")
    return value


def check(block: Any, model: type[Model], *, place: str) -> Model:
    """A block checked against its model. Raises UserError with a line for every mistake: where, what came."""
    try:
        return model.model_validate(block)
    except ValidationError as error:
        lines = [describe(mistake, model, place) for mistake in error.errors()]
        raise UserError("\n".join(lines)) from None


def describe(mistake: Any, model: type[BaseModel], place: str) -> str:
    """One pydantic mistake as a line a person can act on."""
    where = place + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        *outer, name = mistake["loc"]
        inner = model_of(model, outer)
        if new := getattr(inner, "renamed", {}).get(name):
            return f"params: {where}: has another name now; expected {new}"
        return f"params: {where}: unknown parameter{closest(str(name), list(inner.model_fields)) if inner else ''}"
    if mistake["type"] == "missing":
        return f"params: {where}: missing"
    return f"params: {where}: got {mistake['input']!r}; {mistake['msg'].removeprefix('Value error, ')}"


def model_of(model: type[BaseModel], outer: Iterable[str | int]) -> type[BaseModel] | None:
    """The model of the block under these names inside another; None where a field may be several."""
    for name in outer:
        if isinstance(name, int) or name not in model.model_fields:
            continue
        kinds = [kind for kind in flat(model.model_fields[name].annotation) if issubclass(kind, BaseModel)]
        if len(kinds) != 1:
            return None
        model = kinds[0]
    return model


def flat(annotation: Any) -> list[type]:
    """All classes that an annotation is made of."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in flat(part)]


def closest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """The end of an error about an unknown name: the nearest known one and the choice, the first MOST of it."""
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    more = f" and {len(known) - MOST:,} more" if len(known) > MOST else ""
    return f"{hint} (expected one of: {', '.join(known[:MOST])}{more})"
