"""The recipe `pytorch/speedrun`, its parts one by one and then as a whole on toy images."""

import numpy as np
import pytest
import torch  # noqa: TID253

from stages.backbones.pytorch import speedrun
from stages.backbones.pytorch.shared import devices
from stages.backbones.pytorch.shared import views as augmentation
from stages.backbones.pytorch.speedrun.muon import Muon, orthogonalized
from stages.backbones.pytorch.speedrun.plain import Network
from stages.running.errors import UserError

TOY = {"epochs": 4, "batch_size": 32, "widths": [8, 16, 16], "translate": 1}


@pytest.fixture(autouse=True)
def one_thread():
    """Toy tensors are too small to share between threads, and waiting for a busy core takes far longer than they do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


def ramp(n=1, side=8):
    """Images [n, 3, side, side] whose every pixel has its own value."""
    pixels = np.arange(side * side, dtype=np.uint8).reshape(1, side, side, 1)
    return devices.batch_on_device(np.tile(pixels, (n, 1, 1, 3)), torch.device("cpu"))


def moved(pixels, down=0, right=0, mirrored=False):
    rows = torch.arange(len(pixels))
    return augmentation.views(
        pixels, rows, torch.full_like(rows, down), torch.full_like(rows, right), torch.full_like(rows, mirrored).bool()
    )


def test_alternating_flip_shows_each_image_both_ways_in_two_epochs():
    first = augmentation.coins(50, generator())
    shown = [augmentation.flips("alternating", epoch, first, generator()) for epoch in (4, 5)]
    assert (shown[0] ^ shown[1]).all()
    assert shown[0].any()
    assert shown[1].any()


def test_random_flip_is_decided_anew_and_none_flips_nothing():
    first, source = augmentation.coins(50, generator()), generator(1)
    assert not torch.equal(*(augmentation.flips("random", epoch, first, source) for epoch in (0, 1)))
    assert not augmentation.flips("none", 1, first, source).any()


def test_shifts_take_every_value_of_their_range_and_no_other():
    assert set(augmentation.shifts(500, 2, generator()).flatten().tolist()) == {-2, -1, 0, 1, 2}


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
    shown = augmentation.views(pixels, torch.tensor([3, 1]), still, still, still.bool())
    assert shown[:, 0, 0, 0].tolist() == [3, 1]


@pytest.mark.parametrize("side", [0, 3, 20])
def test_cut_out_blanks_one_square_of_its_side_in_each_image(side):
    batch = augmentation.cut_out(torch.ones(40, 3, 10, 10), side, generator())
    blank = (batch == 0).all(1).sum((1, 2))
    assert (blank == min(side, 10) ** 2).all()


def test_resized_images_keep_their_mean():
    batch = torch.full((2, 3, 16, 12), 0.5)
    smaller = augmentation.resized(batch, (12, 8))
    assert smaller.shape == (2, 3, 12, 8)
    torch.testing.assert_close(smaller, torch.full_like(smaller, 0.5))


@pytest.mark.parametrize("shape", [(16, 40), (40, 16)])
def test_the_update_of_muon_is_close_to_orthogonal(shape):
    values = torch.linalg.svdvals(orthogonalized(torch.randn(shape, generator=generator()), 5, torch.float32))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_muon_leaves_a_filter_without_gradient_direction_where_it_is():
    bank = torch.nn.Parameter(torch.ones(4, 2, 3, 3))
    bank.grad = torch.zeros_like(bank)
    Muon([bank], lr=0.1, momentum=0.6, rounds=3, kind=torch.float32).step()
    torch.testing.assert_close(bank.detach().norm(), torch.tensor(2.0))
    assert bank.std() == 0


def test_a_step_of_muon_changes_the_filters_by_its_learning_rate():
    bank = torch.nn.Parameter(torch.randn(16, 16, 3, 3, generator=generator()))
    before = bank.detach() * 4 / bank.detach().norm()
    bank.grad = torch.randn(16, 16, 3, 3, generator=generator(1))
    Muon([bank], lr=0.1, momentum=0.6, rounds=5, kind=torch.float32).step()
    assert 0.07 < (bank.detach() - before).norm() / before.norm() < 0.12


def test_batches_hold_every_row_once_and_are_of_nearly_one_size():
    parts = list(devices.batches(103, 20, generator()))
    assert sorted(torch.cat(parts).tolist()) == list(range(103))
    assert {len(part) for part in parts} == {17, 18}


@pytest.mark.parametrize("name", ["toaster", "meta", "cuda:99"])
def test_an_unknown_device_is_an_error_that_names_the_choice(monkeypatch, name):
    monkeypatch.setenv(devices.VARIABLE, name)
    with pytest.raises(UserError, match=f"{name}.*expected"):
        devices.device()


def test_the_named_device_is_used(monkeypatch):
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    assert devices.device() == torch.device("cpu")


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 21), (33, 33)])
def test_the_network_takes_images_of_any_size_from_eight_pixels(size, depth):
    network = Network(3, 24, 2, [8, 8, 8], depth, "gelu", 1.0)
    assert network(torch.randn(2, 3, *size)).shape == (2, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "float32", "views": "flip_translate", "activation": "silu"},
        {"whiten": False, "cutout": 3, "depth": 3, "flip": "random", "schedule": {"one_cycle": 0.2}},
        {"early_side": 0.75, "early_share": 0.5, "patch": 3, "flip": "none"},
    ],
)
def test_it_learns_a_toy_set(tmp_path, changes):
    predict, _ = trained(tmp_path, **changes)
    images, labels = stripes(60, seed=1)
    predicted = predict(images)
    assert (predicted.argmax(1) == labels).mean() > 0.9
    np.testing.assert_allclose(np.exp(predicted).sum(1), 1, rtol=1e-5)


def test_whole_epochs_report_loss_and_accuracy_and_fractions_move_the_bar(tmp_path):
    _, reports = trained(tmp_path, epochs=2)
    assert [epoch for epoch, _ in reports] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    for epoch, values in reports:
        assert ("train_loss" in values) == (epoch == int(epoch))
        assert values["learning_rate"] > 0


def test_a_part_of_an_epoch_can_be_trained(tmp_path):
    _, reports = trained(tmp_path, epochs=1.34)
    assert [epoch for epoch, values in reports if "train_loss" in values] == pytest.approx([1, 4 / 3])


def test_a_model_loaded_twice_gives_the_same_numbers(tmp_path):
    predict, _ = trained(tmp_path)
    images, _ = stripes(40, seed=1)
    first = predict(images)
    np.testing.assert_array_equal(first, predict(images))
    np.testing.assert_array_equal(first, speedrun.load(tmp_path)(images))


def test_equal_seeds_give_equal_files_and_others_do_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trained(tmp_path / name, seed=seed, cutout=2)
    a, b, c = ((tmp_path / name / speedrun.WEIGHTS).read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(("n", "side", "k"), [(4, 8, 2), (9, 8, 4), (33, 17, 6)])
def test_few_rows_small_images_and_odd_counts_work(tmp_path, n, side, k):
    predict, _ = trained(tmp_path, n=n, side=side, k=k, batch_size=8, epochs=2)
    images, _ = stripes(3, side, k)
    assert predict(images).shape == (3, k)
    assert np.isfinite(predict(images)).all()


def test_no_images_give_no_rows(tmp_path):
    predict, _ = trained(tmp_path, epochs=1)
    assert predict(np.empty((0, 12, 12, 3), np.uint8)).shape == (0, 3)


def test_images_too_small_for_the_parameters_are_an_error(tmp_path):
    with pytest.raises(UserError, match="7 x 7 pixels; expected at least 8"):
        trained(tmp_path, side=7)
    with pytest.raises(UserError, match="expected at least 13"):
        trained(tmp_path, side=12, translate=12)


def test_images_of_another_size_than_trained_on_are_an_error(tmp_path):
    predict, _ = trained(tmp_path, epochs=1)
    with pytest.raises(UserError, match="10 x 10 pixels; expected 12 x 12"):
        predict(stripes(2, 10)[0])
