"""What recipes compute from the training pixels before they train."""

import numpy as np
import pytest

from stages.backbones.vocabulary.pixels import channel_statistics, normalized, whitening_filters


def smooth(n: int = 64, channels: int = 3) -> np.ndarray:
    """Images whose neighbouring pixels are alike."""
    noise = np.random.default_rng(0).normal(size=(n, 21, 21, channels))
    mean = (noise[:, 1:, 1:] + noise[:, :-1, 1:] + noise[:, 1:, :-1] + noise[:, :-1, :-1]) / 4
    return np.broadcast_to(np.clip(128 + 80 * mean, 0, 255), (n, 20, 20, 3)).astype(np.uint8)


def filters_of(images: np.ndarray, size: int = 2) -> np.ndarray:
    return whitening_filters(images, size, *channel_statistics(images))


def test_channel_statistics_are_those_of_numpy_and_never_divide_by_zero() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 9, 8, 3)).astype(np.uint8)
    images[..., 2] = 40
    mean, deviation = channel_statistics(images)
    assert mean == pytest.approx((images / 255).mean((0, 1, 2)).tolist())
    assert deviation[:2] == pytest.approx((images / 255).std((0, 1, 2)).tolist()[:2])
    assert deviation[2] == 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_whitened_patches_have_unit_covariance(size: int) -> None:
    images = smooth()
    n = 3 * size**2
    filters = filters_of(images, size)[:n]
    pixels = normalized(images, *channel_statistics(images))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))
    outputs = np.einsum("nhwcij,fijc->nhwf", windows, filters).reshape(-1, n)
    np.testing.assert_allclose(np.cov(outputs, rowvar=False), np.eye(n), atol=1e-3)


def test_the_second_half_of_the_whitening_filters_negates_the_first() -> None:
    filters = filters_of(smooth())
    assert filters.shape == (24, 2, 2, 3)
    np.testing.assert_array_equal(filters[12:], -filters[:12])


def test_grey_images_get_filters_for_their_four_directions_alone() -> None:
    assert filters_of(smooth(channels=1)).shape == (8, 2, 2, 3)


def test_images_of_one_colour_still_get_finite_filters() -> None:
    filters = filters_of(np.full((4, 8, 8, 3), 70, np.uint8))
    assert len(filters) == 2
    assert np.isfinite(filters).all()
