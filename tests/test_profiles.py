"""Every block of params.yaml and of every profile is one with which its recipe trains, saves, loads and predicts."""

import pytest

from tests import profiles
from tests.profiles import BLOCKS, PLANTED


@pytest.mark.parametrize("name", BLOCKS)
def test_block_fits_its_recipe_and_gives_probabilities(name: str) -> None:
    error = profiles.first_epochs(BLOCKS[name]["framework"])[name]
    assert error is None, error


@pytest.mark.parametrize("framework", sorted({block["framework"] for block in BLOCKS.values()}))
def test_a_wrong_block_is_told_by_its_name(framework: str) -> None:
    error = profiles.first_epochs(framework)[PLANTED]
    assert "backbones.planted.epoks: unknown parameter; did you mean 'epochs'?" in str(error)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "claim"), [(name, claim) for name in BLOCKS for claim in profiles.claims(name)])
def test_block_keeps_the_contract(name: str, claim: str) -> None:
    error = profiles.batteries_of(BLOCKS[name]["framework"])[name][claim]
    assert error is None, error
