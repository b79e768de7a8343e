"""Growing images: the size of each step."""

from stages.backbones.vocabulary.progressive import Growing


def sizes(size: tuple[int, int], steps: int, *, start: float, share: float) -> list[tuple[int, int]]:
    return Growing(early_side=start, early_share=share).sizes(size, steps)


def test_the_size_grows_evenly_in_steps_of_four_pixels_to_the_whole_image() -> None:
    sides = [16, 16, 20, 20, 20, 24, 24, 24, 28, 28, 28, 32]
    assert sizes((32, 32), 12, start=0.5, share=1.0) == [(side, side) for side in sides]


def test_a_share_of_none_of_the_steps_leaves_the_size_as_it_is() -> None:
    assert sizes((30, 41), 3, start=0.5, share=0.0) == [(30, 41)] * 3


def test_a_start_at_the_whole_size_leaves_odd_sizes_as_they_are() -> None:
    assert sizes((30, 41), 3, start=1.0, share=1.0) == [(30, 41)] * 3


def test_the_last_steps_see_a_size_that_is_no_multiple_of_four_whole() -> None:
    assert sizes((30, 41), 4, start=0.5, share=0.5) == [(16, 20), (24, 32), (30, 41), (30, 41)]


def test_no_image_becomes_smaller_than_eight_pixels_unless_it_comes_so() -> None:
    assert sizes((16, 6), 2, start=0.25, share=1.0)[0] == (8, 6)
