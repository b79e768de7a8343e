"""params.yaml is read as DVC reads it, and every mistake is named with its place."""

from pathlib import Path

import pytest
from pydantic import Field

from stages.running import parameters
from stages.running.errors import UserError


class Oven(parameters.Block):
    heat: int = Field(default=200, ge=0, le=300)
    name: str = "small"


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("stack: {a: 1e-3, b: -2E+4, c: 1.5e3, d: 12, e: e3}\n")
    assert parameters.read(path)["stack"] == {"a": 1e-3, "b": -2e4, "c": 1.5e3, "d": 12, "e": "e3"}


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


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run from the root of the repository"):
        parameters.read(tmp_path / "params.yaml")


@pytest.mark.parametrize("seed", [-1, 0.5, "0", True])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(UserError, match="params: seed: got"):
        parameters.seed({"seed": seed})
