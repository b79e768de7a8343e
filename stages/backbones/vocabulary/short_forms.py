"""Short forms in params.yaml: `flatten`, `{conv: 32, kernel: 3}`: the key that names the kind has its main value."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from stages.running.parameters import Block, closest


class Kind(Block):
    """One of several things a parameter may hold. Its first field has its name; with a default, the name will do."""

    @classmethod
    def name(cls) -> str:
        return next(iter(cls.model_fields))


def parser(*kinds: type[Kind], renamed: Mapping[str, str] | None = None) -> Callable[[Any], Kind]:
    """A pydantic validator that reads the short form of any of `kinds`, with the new names of those `renamed`.

    Its errors name the closest kind or option.
    """
    known = {kind.name(): kind for kind in kinds}

    def parse(value: Any) -> Kind:
        if isinstance(value, kinds):
            return value
        options = {value: None} if isinstance(value, str) else value
        if not isinstance(options, Mapping) or not options:
            raise mistake(f"expected a name or a mapping that starts with one of: {', '.join(known)}")
        for old, new in (renamed or {}).items():
            if old in options:
                raise mistake(f"{old} is {new} now")
        kind = known[kind_of(options, known)]
        try:
            return kind.model_validate({name: given for name, given in options.items() if given is not None})
        except ValidationError as error:
            raise mistake("; ".join(describe(each, kind) for each in error.errors())) from None

    return parse


def kind_of(options: Mapping[Any, Any], known: Mapping[str, type[Kind]]) -> str:
    """The key that names the kind: the one that is no option of another kind's mapping, wherever it stands."""
    names = [name for name in options if name in known]
    owners = [name for name in names if not any(name in known[other].model_fields for other in names if other != name)]
    if not owners:
        first = next(iter(options))
        raise mistake(f"unknown kind {first!r}{closest(str(first), list(known))}")
    return owners[0]


def describe(each: Any, kind: type[Kind]) -> str:
    """One pydantic mistake; its place as `layers[3].kernel`."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in each["loc"]).lstrip(".")
    if each["type"] == "extra_forbidden":
        return f"unknown option {where!r} of {kind.name()}{closest(where, list(kind.model_fields))}"
    if each["type"] == "missing":
        return f"{kind.name()} needs {where}"
    return f"{where or kind.name()}: got {each['input']!r}; {each['msg'].removeprefix('Value error, ')}"


def mistake(message: str) -> PydanticCustomError:
    return PydanticCustomError("kind", "{message}", {"message": message})
