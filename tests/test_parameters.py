"""params.yaml is read as DVC reads it, and every mistake is named with its place."""

from pathlib import Path
from typing import Any

import pytest
import ruamel.yaml
from pydantic import Field

from stages.running import parameters
from stages.running.errors import UserError


class Oven(parameters.Block):
    heat: int = Field(default=200, ge=0, le=300)
    name: str = "small"


class Kitchen(parameters.Block):
    oven: Oven = Oven()
    more: tuple[Oven, ...] | None = None


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("stack: {a: 1e-3, b: -2E+4, c: 1.5e3, d: 12, e: e3}\n")
    assert parameters.read(path)["stack"] == {"a": 1e-3, "b": -2e4, "c": 1.5e3, "d": 12, "e": "e3"}


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_of_another_system_says_the_same(start: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(f"{start}seed: 3{end}stack:{end}  members: [a, b]{end}".encode())
    assert parameters.read(path) == {"seed": 3, "stack": {"members": ["a", "b"]}}


SCALARS = (
    "010 08 -012 0o17 0x1F 0b11 1_000 1:30 1 0 -0 +3 1e3 1e-3 -2E+4 1.5 .5 1. 1.5e3 .inf -.INF 1_0.5 1.2.3 e3 0x 12a "
    "no yes on off y n true True FALSE tRUE null ~ NULL nil 2020-01-01"
)


def test_what_stands_there_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("search:\n" + "".join(f"  k{number}: {text}\n" for number, text in enumerate(SCALARS.split())))
    ours, theirs = parameters.read(path)["search"], ruamel.yaml.YAML(typ="safe", pure=True).load(path)["search"]
    found = {text: (type(a).__name__, a) for text, a in zip(SCALARS.split(), ours.values(), strict=True)}
    assert found == {text: (type(b).__name__, b) for text, b in zip(SCALARS.split(), theirs.values(), strict=True)}
    assert (found["010"][1], found["no"][1]) == (10, "no")


def test_a_section_left_out_has_its_defaults() -> None:
    assert parameters.section({}, "oven", Oven) == Oven()


def test_every_mistake_is_named_with_place_and_closest_name() -> None:
    with pytest.raises(UserError) as caught:
        parameters.section({"oven": {"heet": 3, "heat": 900}}, "oven", Oven)
    assert str(caught.value).splitlines() == [
        "params: oven.heat: got 900; Input should be less than or equal to 300",
        "params: oven.heet: unknown parameter; did you mean 'heat'? (expected one of: heat, name)",
    ]


@pytest.mark.parametrize(
    ("block", "place"),
    [({"oven": {"heet": 3}}, "kitchen.oven.heet"), ({"more": [{"heet": 3}]}, "kitchen.more[0].heet")],
)
def test_an_unknown_name_inside_a_block_is_told_with_those_of_that_block(block: dict[str, Any], place: str) -> None:
    with pytest.raises(UserError) as caught:
        parameters.section({"kitchen": block}, "kitchen", Kitchen)
    how = "unknown parameter; did you mean 'heat'? (expected one of: heat, name)"
    assert str(caught.value) == f"params: {place}: {how}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("splt: {}", r"unknown section 'splt'; did you mean 'split'"),
        ("- a", "holds list; expected the sections"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_broken_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        parameters.read(tmp_path / "params.yaml")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_in_another_encoding_is_refused(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("data: {path: café}\n", encoding=encoding)
    with pytest.raises(UserError, match=r"params\.yaml is not in UTF-8; save it so"):
        parameters.read(tmp_path / "params.yaml")


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run from the root of the repository"):
        parameters.read(tmp_path / "params.yaml")


@pytest.mark.parametrize("seed", [-1, 0.5, "0", True])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(UserError, match="params: seed: got"):
        parameters.seed({"seed": seed})
