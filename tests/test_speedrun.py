"""The recipe `pytorch/speedrun`, its parts one by one and then as a whole on toy images."""

import numpy as np
import pytest
import torch  # noqa: TID253

from stages.backbones.pytorch import speedrun
from stages.backbones.pytorch.shared import devices, rows
from stages.backbones.pytorch.speedrun.muon import Muon, orthogonalized
from stages.backbones.pytorch.speedrun.networks import Network
from stages.backbones.pytorch.speedrun.parameters import Settings
from stages.images.scaling import resize
from stages.running.errors import UserError
from stages.running.parameters import check

TOY = {"epochs": 4, "batch_size": 32, "widths": [8, 16, 16], "augmentation": [{"flip": "alternating"}, {"shift": 1}]}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def stripes(n, side=12, k=3, seed=0):
    """Noisy images whose class is their main colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % k
    images = rng.integers(0, 150, (n, side, side, 3), dtype=np.uint8)
    images[np.arange(n), :, :, labels % 3] += (60 + 40 * (labels // 3)).astype(np.uint8)[:, None, None]
    return images, labels


def trained(folder, seed=0, n=96, side=12, k=3, **changes):
    """A function that predicts, and what was reported while it was trained."""
    images, labels = stripes(n, side, k)
    reports = []
    speedrun.fit(
        images,
        labels,
        speedrun.Params(**{**TOY, **changes}),
        seed=seed,
        folder=folder,
        report=lambda epoch, values: reports.append((epoch, dict(values))),
    )
    return speedrun.load(folder), reports


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of two epochs: a function that predicts, and what was reported."""
    return trained(tmp_path_factory.mktemp("saved"), epochs=2)


def ramp(n=1, side=8):
    """Images [n, 3, side, side] whose every pixel has its own value."""
    pixels = np.arange(side * side, dtype=np.uint8).reshape(1, side, side, 1)
    return devices.batch_on_device(np.tile(pixels, (n, 1, 1, 3)), torch.device("cpu"))


def moved(pixels, down=0, right=0, mirrored=False):
    every = torch.arange(len(pixels))
    moves = [torch.full_like(every, value) for value in (down, right, mirrored)]
    return rows.views(pixels, every, moves[0], moves[1], moves[2].bool())


def test_alternating_flip_shows_each_image_both_ways_in_two_epochs():
    first = rows.coins(50, generator())
    shown = [rows.flips("alternating", epoch, first, generator()) for epoch in (4, 5)]
    assert (shown[0] ^ shown[1]).all()
    assert shown[0].any()
    assert shown[1].any()


def test_a_horizontal_flip_is_decided_anew_and_none_flips_nothing():
    first, source = rows.coins(50, generator()), generator(1)
    assert not torch.equal(*(rows.flips("horizontal", epoch, first, source) for epoch in (0, 1)))
    assert not rows.flips(None, 1, first, source).any()


def test_shifts_take_every_value_of_their_range_and_no_other():
    assert set(rows.shifts(500, 2, generator()).flatten().tolist()) == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize(
    ("described", "flip", "reach", "rest"),
    [
        ([], None, 0, 0),
        (["flip", {"shift": 3}], "horizontal", 3, 0),
        ([{"shift": 3}, {"flip": "alternating"}, "flip"], "alternating", 3, 1),
        ([{"shift": 3}, {"shift": 2}, "flip"], None, 3, 2),
        ([{"shift": 3, "fill": "nearest"}, "flip"], None, 0, 2),
        ([{"flip": "vertical"}, {"shift": 3}], None, 0, 2),
    ],
)
def test_a_flip_and_a_reflecting_shift_that_lead_are_read_and_the_rest_is_left(described, flip, reach, rest):
    *read, left = rows.leading(speedrun.Params(augmentation=described).augmentation)
    assert (read, len(left)) == ([flip, reach], rest)


@pytest.mark.parametrize("first", [{"rotation": 0.1}, "flip", {"shift": 2, "fill": "wrap"}])
def test_an_alternating_flip_behind_other_changes_is_refused(first):
    with pytest.raises(UserError, match="flip alternating behind other changes; expected it first"):
        check(TOY | {"augmentation": [first, {"flip": "alternating"}]}, speedrun.Params, place="backbones.toy")


def test_a_view_is_the_mirrored_and_shifted_image_with_reflected_edges():
    pixels = ramp()
    image = pixels[0, 0].numpy()
    padded = np.pad(image[:, ::-1], 2, mode="reflect")
    shown = moved(pixels, down=2, right=-1, mirrored=True)
    np.testing.assert_array_equal(shown[0, 0], padded[0:8, 3:11])
    assert shown.is_contiguous(memory_format=torch.channels_last)


def test_views_take_the_rows_asked_for():
    pixels = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 8, 8)
    still = torch.zeros(2, dtype=torch.int64)
    shown = rows.views(pixels, torch.tensor([3, 1]), still, still, still.bool())
    assert shown[:, 0, 0, 0].tolist() == [3, 1]


def test_resized_images_keep_their_mean():
    parts = {"classes": 3, "first": 8, "size": (16, 12), "mean": [0.2] * 3, "deviation": [0.4] * 3}
    settings = Settings(params=speedrun.Params(), **parts)
    smaller = speedrun.resized(torch.full((2, 3, 16, 12), 102), (12, 8), settings, torch.bfloat16)
    assert smaller.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(smaller, torch.full((2, 3, 12, 8), 0.5, dtype=torch.bfloat16))


@pytest.mark.parametrize("shape", [(16, 40), (40, 16)])
def test_the_update_of_muon_is_close_to_orthogonal(shape):
    values = torch.linalg.svdvals(orthogonalized(torch.randn(shape, generator=generator()), 5, torch.float32))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_muon_leaves_a_filter_without_gradient_direction_where_it_is():
    bank = torch.nn.Parameter(torch.ones(4, 2, 3, 3))
    bank.grad = torch.zeros_like(bank)
    Muon([bank], lr=0.1, momentum=0.6, rounds=3, dtype=torch.float32).step()
    torch.testing.assert_close(bank.detach().norm(), torch.tensor(2.0))
    assert bank.std() == 0


def test_a_step_of_muon_changes_the_filters_by_its_learning_rate():
    bank = torch.nn.Parameter(torch.randn(16, 16, 3, 3, generator=generator()))
    before = bank.detach() * 4 / bank.detach().norm()
    bank.grad = torch.randn(16, 16, 3, 3, generator=generator(1))
    Muon([bank], lr=0.1, momentum=0.6, rounds=5, dtype=torch.float32).step()
    assert 0.07 < (bank.detach() - before).norm() / before.norm() < 0.12


def test_batches_hold_every_row_once_and_are_of_nearly_one_size():
    parts = list(rows.batches(103, 20, generator()))
    assert sorted(torch.cat(parts).tolist()) == list(range(103))
    assert {len(part) for part in parts} == {17, 18}


@pytest.mark.parametrize("name", ["toaster", "meta", "cuda:99"])
def test_an_unknown_device_is_an_error_that_names_the_choice(monkeypatch, name):
    monkeypatch.setenv("FOLDSTACK_DEVICE", name)
    with pytest.raises(UserError, match=f"{name}.*expected"):
        devices.device()


def test_the_named_device_is_used(monkeypatch):
    monkeypatch.setenv("FOLDSTACK_DEVICE", "cpu")
    assert devices.device() == torch.device("cpu")


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 21), (33, 33)])
def test_the_network_takes_images_of_any_size_from_eight_pixels(size, depth):
    network = Network(3, 24, 2, [8, 8, 8], depth, "gelu", 1.0)
    assert network(torch.randn(2, 3, *size)).shape == (2, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "float32", "views": "flip_shift", "activation": "silu"},
        {"whiten": False, "depth": 3, "augmentation": [{"shift": 1}, "flip"], "schedule": {"one_cycle": 0.2}},
        {"early_side": 0.75, "early_share": 0.5, "patch": 3, "augmentation": []},
    ],
)
def test_it_learns_a_toy_set(tmp_path, changes):
    predict, _ = trained(tmp_path, **changes)
    images, labels = stripes(60, seed=1)
    predicted = predict(images)
    assert (predicted.argmax(1) == labels).mean() > 0.9
    np.testing.assert_allclose(np.exp(predicted).sum(1), 1, rtol=1e-5)


def test_whole_epochs_report_loss_and_accuracy_and_fractions_move_the_bar(saved):
    _, reports = saved
    assert [epoch for epoch, _ in reports] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    for epoch, values in reports:
        assert set(values) == {"learning_rate"} | ({"train_loss", "train_accuracy"} if epoch == int(epoch) else set())
        assert values["learning_rate"] > 0


def test_a_part_of_an_epoch_can_be_trained(tmp_path):
    _, reports = trained(tmp_path, epochs=1.34)
    assert [epoch for epoch, values in reports if "train_loss" in values] == pytest.approx([1, 4 / 3])


@pytest.mark.parametrize(("n", "side", "k"), [(4, 8, 2), (9, 8, 4), (33, 17, 6)])
def test_few_rows_small_images_and_odd_counts_work(tmp_path, n, side, k):
    predict, _ = trained(tmp_path, n=n, side=side, k=k, batch_size=8, epochs=2)
    images, _ = stripes(3, side, k)
    assert predict(images).shape == (3, k)
    assert np.isfinite(predict(images)).all()


def test_no_images_give_no_rows(saved):
    assert saved[0](np.empty((0, 12, 12, 3), np.uint8)).shape == (0, 3)


def test_images_too_small_for_the_parameters_are_an_error(tmp_path):
    with pytest.raises(UserError, match="shift 12 with fill reflect of images of 12 x 12 pixels; expected at most 11"):
        trained(tmp_path, side=12, augmentation=[{"shift": 12}])


@pytest.mark.parametrize("side", [10, 30])
def test_images_of_another_size_than_trained_on_are_scaled_to_it(saved, side):
    images = stripes(2, side)[0]
    np.testing.assert_array_equal(saved[0](images), saved[0](resize(images, (12, 12))))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"flip": "none"}, "flip: has another name now; expected augmentation: "),
        ({"translate": 2}, r"translate: .*expected augmentation: \[{shift: 2}\]"),
        ({"cutout": 8}, r"cutout: .*expected augmentation: \[{erase: 0.5}\]"),
        ({"views": "flip_translate"}, "views: got 'flip_translate'; .*'flip_shift'"),
    ],
)
def test_an_old_parameter_is_refused_with_the_new_one_named(old, new):
    with pytest.raises(UserError, match=rf"backbones\.toy\.{new}"):
        check(TOY | old, speedrun.Params, place="backbones.toy")
