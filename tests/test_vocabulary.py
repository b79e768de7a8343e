"""The words of a block that no framework is needed for: layers by their short forms, schedules, the validation part."""

from typing import Any

import numpy as np
import pytest

from stages.backbones.vocabulary.changes import AnyChange, check_reach
from stages.backbones.vocabulary.layers import AnyLayer, Conv
from stages.backbones.vocabulary.schedules import AnySchedule, Constant, Cosine, OneCycle, Step, rates
from stages.backbones.vocabulary.short_forms import parser
from stages.backbones.vocabulary.stopping import carve
from stages.running.errors import UserError
from stages.running.parameters import Block, check


class Described(Block):
    layers: tuple[AnyLayer, ...] = ()
    schedule: AnySchedule = Constant()
    augmentation: tuple[AnyChange, ...] = ()


def described(**block: Any) -> Described:
    return check(block, Described, place="backbones.toy")


def test_the_kind_is_found_wherever_its_key_stands() -> None:
    assert parser(Conv)({"activation": "relu", "conv": 4}) == Conv(conv=4, activation="relu")
    assert described(layers=[{"activation": "relu", "conv": 4}]).layers[0] == Conv(conv=4, activation="relu")


def test_an_unknown_layer_names_its_place_and_the_closest_kind() -> None:
    with pytest.raises(UserError, match=r"layers[.\[]1.*unknown kind 'max_poll'; did you mean 'max_pool'"):
        described(layers=["flatten", {"max_poll": 2}])


def test_an_unknown_option_names_its_place_and_the_closest_option() -> None:
    with pytest.raises(UserError, match=r"layers[.\[]0.*unknown option 'kernal' of conv; did you mean 'kernel'"):
        described(layers=[{"conv": 8, "kernal": 3}])
    with pytest.raises(UserError, match=r"layers[.\[]0.*residual\[1\].*unknown kind 'batchnorm'.*'batch_norm'"):
        described(layers=[{"residual": [{"conv": 8}, "batchnorm"]}])
    with pytest.raises(UserError, match=r"schedule.*unknown kind 'cosin'; did you mean 'cosine'"):
        described(schedule="cosin")


@pytest.mark.parametrize("wrong", [3, {}, None, {"conv": 0}, "dropout", {"dropout": 1.5}], ids=str)
def test_a_layer_that_is_no_layer_is_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"layers[.\[]0"):
        described(layers=[wrong])


def test_schedules_give_the_rates_they_describe() -> None:
    assert rates(Constant(), 2.0, 4).tolist() == [2, 2, 2, 2]
    assert rates(Step(step=(0.75, 0.5), factor=0.1), 1.0, 4) == pytest.approx([1, 1, 0.1, 0.01])
    triangle = OneCycle(one_cycle=0.5, start=0.2, end=0.0)
    assert rates(triangle, 1.0, 4) == pytest.approx([0.4, 0.8, 0.75, 0.25])
    cosine = rates(Cosine(cosine=0.1, warmup=0.5), 1.0, 4)
    falling = [0.1 + 0.9 * (1 + np.cos(np.pi * share)) / 2 for share in (0.25, 0.75)]
    assert cosine == pytest.approx([0.25, 0.75, *falling])


def test_a_validation_part_takes_its_share_of_every_class() -> None:
    labels = np.repeat(np.arange(3), [40, 20, 1]).astype(np.int64)
    training, validation = carve(labels, 0.25, seed=0)
    assert sorted([*training, *validation]) == list(range(61))
    assert np.bincount(labels[validation], minlength=3).tolist() == [10, 5, 0]


def test_a_rectangle_larger_at_least_than_at_most_is_refused_for_every_framework() -> None:
    with pytest.raises(UserError, match=r"augmentation[.\[]0.*erase: got .*smallest 0.3 is above largest 0.15"):
        described(augmentation=[{"erase": 0.5, "smallest": 0.3}])


@pytest.mark.parametrize(("fill", "most"), [("reflect", 11), ("wrap", 12)])
def test_a_shift_uncovers_no_more_than_its_fill_can_fill(fill: str, most: int) -> None:
    check_reach(most, (14, 12), fill)
    with pytest.raises(UserError, match=f"of images of 14 x 12 pixels; expected at most {most}"):
        check_reach(most + 1, (14, 12), fill)
