"""Growing images: the size of each step."""

from stages.backbones.vocabulary import progressive


def test_the_size_grows_evenly_in_steps_of_four_pixels_to_the_whole_image() -> None:
    sizes = progressive.sizes((32, 32), 12, start=0.5, share=1.0)
    assert sizes[:, 0].tolist() == [16, 16, 20, 20, 20, 24, 24, 24, 28, 28, 28, 32]
    assert (sizes[:, 0] == sizes[:, 1]).all()


def test_a_share_of_none_of_the_steps_leaves_the_size_as_it_is() -> None:
    assert (progressive.sizes((30, 41), 3, start=0.5, share=0.0) == (30, 41)).all()


def test_a_start_at_the_whole_size_leaves_odd_sizes_as_they_are() -> None:
    assert (progressive.sizes((30, 41), 3, start=1.0, share=1.0) == (30, 41)).all()


def test_the_last_steps_see_a_size_that_is_no_multiple_of_four_whole() -> None:
    assert progressive.sizes((30, 41), 4, start=0.5, share=0.5).tolist() == [[16, 20], [24, 32], [30, 41], [30, 41]]


def test_no_image_becomes_smaller_than_eight_pixels_unless_it_comes_so() -> None:
    assert progressive.sizes((16, 6), 2, start=0.25, share=1.0)[0].tolist() == [8, 6]
