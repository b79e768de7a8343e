"""Every block of profiles/reference.yaml keeps the contract of a backbone."""

import pytest

from tests import profiles


@pytest.mark.parametrize(("name", "claim"), profiles.cases([profiles.REFERENCE]))
def test_block(name: str, claim: str) -> None:
    assert profiles.results(name)[claim] is None, profiles.results(name)[claim]
