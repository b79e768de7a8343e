"""What benchmarks/distill.py makes of predictions."""

import numpy as np
import pytest

from benchmarks.distill import SCORES, Said, compared, student
from stages.stacking.predictions import scores
from tests import stacks


def test_scores_of_a_draw_are_those_of_the_images_drawn():
    stack, labels, _ = stacks.stack(n=300)
    counts = np.bincount(np.random.default_rng(0).integers(0, 300, 300), minlength=300)
    rows = np.repeat(np.arange(300), counts)
    expected = scores.summary(stack[rows, 0], labels[rows])
    found = Said.of(stack[:, 0], labels).scores(counts)
    assert dict(zip(SCORES, found, strict=True)) == pytest.approx(expected)


def test_equal_models_are_not_apart_and_better_ones_are():
    stack, labels, _ = stacks.stack(n=300, experts=((0, 1, 2, 3), ()))
    good, bad = (np.stack([stack[:, member], stack[:, member]]) for member in (0, 1))
    assert not compared(good, good, labels, draws=20)[["difference", "low", "high"]].to_numpy().any()
    table = compared(good, bad[:1], labels, draws=50).set_index("score")
    assert min(table["low"].to_dict()[name] for name in ("macro_f1", "accuracy")) > 0.3
    assert table["high"].to_dict()["log_loss"] < -0.5
    assert (table["low"].to_numpy() <= table["difference"].to_numpy()).all()


def test_a_backbone_may_be_the_student():
    content = {"backbones": {"tiny": {"framework": "pytorch", "recipe": "speedrun", "epochs": 4}}}
    one = student(content, "tiny", ["soft=0.9", "epochs=2"])
    assert (one.params.soft, one.block["epochs"]) == (0.9, 2)
