"""Random changes of batches in PyTorch, each as `stages.backbones.vocabulary.changes` describes it."""

import numpy as np
import pytest
import torch  # noqa: TID253
from pydantic import TypeAdapter

from stages.backbones.pytorch.shared.changes import changer
from stages.backbones.pytorch.shared.rows import leading
from stages.backbones.vocabulary.changes import AnyChange
from stages.running.errors import UserError

EVERY = [
    "flip",
    {"flip": "vertical"},
    {"flip": "horizontal_and_vertical"},
    {"shift": 3},
    {"shift": 20, "fill": "nearest"},
    {"shift": 12, "fill": "wrap"},
    {"translation": 0.2},
    {"rotation": 0.1, "fill": "constant"},
    {"zoom": 1.0, "fill": "nearest"},
    {"contrast": 0.5},
    {"brightness": 0.3},
    {"saturation": 0.5},
    {"hue": 0.5},
    {"gamma": 0.4},
    {"channel_shuffle": 1.0},
    {"erase": 1.0},
    {"rand_augment": 2, "magnitude": 1.0},
    "trivial_augment",
]


def parsed(*described):
    return [TypeAdapter(AnyChange).validate_python(each) for each in described]


def changed(images, *described, seed=0):
    torch.manual_seed(seed)
    return changer(parsed(*described), (images.shape[2], images.shape[3]))(images)


def noise(n=16, height=14, width=12):
    return torch.randint(256, (n, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def plain(*colour, n=200):
    return torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(n, 3, 8, 8)


def gradient(n=64):
    """Images whose every pixel is 10 times its column."""
    return (10.0 * torch.arange(16)).view(1, 1, 1, 16).expand(n, 3, 16, 16)


@pytest.mark.parametrize("change", EVERY, ids=str)
def test_every_change_gives_each_image_its_own_one_within_the_pixels_range_and_equal_seeds_give_equal_bits(change):
    images = noise(1).expand(16, -1, -1, -1)
    result = changed(images, change)
    assert result.dtype == torch.float32
    assert result.shape == images.shape
    assert result.min() >= 0
    assert result.max() <= 255
    assert len({image.numpy().tobytes() for image in result}) > 1
    assert torch.equal(result, changed(images, change))
    assert not torch.equal(result, changed(images, change, seed=1))


@pytest.mark.parametrize("change", EVERY, ids=str)
def test_a_batch_without_images_stays_one(change):
    assert changed(noise(0), change).shape == (0, 3, 14, 12)


def test_no_change_leaves_the_pixels_and_changes_happen_in_the_order_of_the_list():
    images = noise()
    torch.testing.assert_close(changed(images), images.float())
    both = changed(plain(200, 200, 200), {"brightness": 1.0}, {"erase": 1.0})
    assert ((both - 127).abs() < 0.01).flatten(1).any(1).all()


def test_a_flip_mirrors_about_half_of_the_images():
    images = gradient()
    result = changed(images, "flip")
    mirrored = torch.isclose(result, images.flip(3)).flatten(1).all(1)
    same = torch.isclose(result, images).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 16 < mirrored.sum() < 48


def test_a_shift_is_of_whole_pixels_up_to_its_value():
    result = changed(gradient(200), {"shift": 2})
    shifts = (result[:, 0, 0, 8] - 80) / 10
    assert {round(shift, 2) for shift in shifts.tolist()} == {-2, -1, 0, 1, 2}


def test_a_translation_shifts_by_up_to_its_share_of_the_side():
    result = changed(gradient(300), {"translation": 0.25})
    shifts = (result[:, 0, 8, 8] - 80) / 10
    assert -4 <= shifts.min() < -3.5
    assert 3.5 < shifts.max() <= 4


def test_a_rotation_turns_by_up_to_its_share_of_a_full_turn():
    slopes = changed(gradient(300), {"rotation": 0.1})[:, 0, 7:9, 7:9].mean(1).diff(dim=1)[:, 0] / 10
    largest = torch.rad2deg(torch.arccos(slopes.clamp(-1, 1))).max()
    assert 33 < largest < 36.5


def test_a_zoom_changes_the_size_by_up_to_its_share():
    sizes = 10 / changed(gradient(300), {"zoom": 0.5})[:, 0, 8, 7:9].diff(dim=1)[:, 0]
    assert 0.5 <= sizes.min() < 0.55
    assert 1.45 < sizes.max() <= 1.51


@pytest.mark.parametrize(("fill", "edge"), [("reflect", 0), ("nearest", 0), ("constant", 50)])
def test_uncovered_places_are_filled_as_asked(fill, edge):
    result = changed(plain(50, 50, 50), {"translation": 0.5, "fill": fill})
    assert (result - 50).abs().max() == pytest.approx(edge, abs=1e-3)


def test_contrast_multiplies_distances_from_the_mean_grey():
    images = plain(100, 100, 100).clone()
    images[:, :, 4:] = 140
    result = changed(images, {"contrast": 0.2})
    factors = (result[:, 0, 7, 0] - result[:, 0, 0, 0]) / 40
    assert 0.8 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2001
    torch.testing.assert_close(result.mean((1, 2, 3)), torch.full((200,), 120.0), atol=0.01, rtol=0)


def test_brightness_shifts_by_up_to_its_share_of_the_range():
    shifts = changed(plain(100, 100, 100), {"brightness": 0.2})[:, 0, 0, 0] - 100
    assert -51.01 <= shifts.min() < -48
    assert 48 < shifts.max() <= 51.01


def test_saturation_of_one_reaches_from_grey_to_stronger_colours():
    spread = changed(plain(100, 120, 110), {"saturation": 1.0})[:, :, 0, 0]
    distances = spread.max(1).values - spread.min(1).values
    assert distances.min() < 1
    assert 39 < distances.max() < 40.1


def test_hue_of_two_thirds_turns_red_into_any_colour_up_to_green_and_blue():
    result = changed(plain(200, 0, 0), {"hue": 2 / 3})[:, :, 0, 0]
    assert (result.max(1).values - 200).abs().max() < 0.1
    assert result[:, 1].max() > 195
    assert result[:, 2].max() > 195
    assert (result[:, 1:].min(1).values < 0.1).all()


def test_gamma_takes_powers_of_pixels_scaled_to_one():
    result = changed(plain(64, 64, 64), {"gamma": 0.2})[:, 0, 0, 0]
    exponents = np.log(result.numpy() / 255) / np.log(64 / 255)
    assert 0.8 <= exponents.min() < 0.82
    assert 1.18 < exponents.max() <= 1.2001


def test_a_share_of_the_images_have_their_channels_shuffled_or_a_rectangle_erased():
    shuffled = changed(plain(0, 100, 200), {"channel_shuffle": 0.5})[:, :, 0, 0]
    assert 50 < (shuffled != torch.tensor([0.0, 100, 200])).any(1).sum() < 120  # a sixth of all orders is the old one
    erased = (changed(plain(0, 0, 0), {"erase": 0.5, "smallest": 0.2, "largest": 0.3}) > 0).all(1).sum((1, 2))
    assert 70 < (erased > 0).sum() < 130
    assert erased[erased > 0].min() >= 64 * 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shift": 12}, "shift 12 with fill reflect of images of 14 x 12 pixels; expected at most 11"),
        ({"shift": 13, "fill": "wrap"}, "expected at most 12"),
    ],
)
def test_what_the_libraries_cannot_do_is_an_error(change, message):
    with pytest.raises(UserError, match=message):
        changed(noise(), change)


def test_a_fill_that_kornia_lacks_is_refused_with_the_block():
    with pytest.raises(UserError, match=r"rotation: fill wrap.*expected one of reflect, constant, nearest"):
        leading(parsed({"brightness": 0.1}, {"rotation": 0.1, "fill": "wrap"}))
