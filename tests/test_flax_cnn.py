"""The recipe flax/cnn on images of 12x12 pixels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from stages.backbones.flax import cnn
from stages.backbones.flax.cnn import steps
from stages.backbones.flax.cnn.changes import augmented, mixed
from stages.backbones.flax.cnn.layers import Network
from stages.backbones.flax.cnn.parameters import loss, penalty, updates
from stages.backbones.flax.cnn.training import Rates, Training, batches
from stages.backbones.flax.shared import session
from stages.backbones.vocabulary.changes import Mixing
from stages.backbones.vocabulary.pixels import channel_statistics, whitening_filters
from stages.backbones.vocabulary.stopping import carve
from stages.running.errors import UserError, is_out_of_memory
from stages.running.parameters import check

# isort: split
import jax  # noqa: TID253  (the test of a Flax recipe)
import jax.numpy as jnp  # noqa: TID253
import optax
from flax import nnx  # noqa: TID253
from safetensors.numpy import load_file

LAYERS: list[Any] = [{"conv": 8, "use_bias": False}, "batch_norm", {"activation": "relu"}, "global_average_pool"]


def toy(n: int = 96, size: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that differ in the strongest colour."""
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % 3
    images = rng.integers(0, 120, (n, size, size, 3), dtype=np.uint8)
    images[np.arange(n), :, :, labels] += np.uint8(100)
    return images, labels


def params(**changes: Any) -> cnn.Params:
    block = {"layers": LAYERS, "epochs": 3, "batch_size": 16, "learning_rate": 0.01, "precision": "float32"}
    return check(block | changes, cnn.Params, place="backbones.toy")


def settings(**changes: Any) -> cnn.Settings:
    return cnn.Settings(params=params(**changes), size=(12, 12), classes=3, dtype="float32")


def trained(folder: Path, seed: int = 1, **changes: Any) -> tuple[np.ndarray, list[tuple[float, Any]]]:
    """What the reloaded network predicts for the toy images, and what it reported."""
    images, labels = toy()
    said: list[tuple[float, Any]] = []
    report = lambda epoch, values: said.append((epoch, values))  # noqa: E731
    cnn.fit(images, labels, params(**changes), seed=seed, folder=folder, report=report)
    return cnn.load(folder)(images), said


def arrays(layers: list[Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of what trains, by their names."""
    _, network, _ = steps.parts(steps.abstract(settings(layers=layers)))
    flat = nnx.to_flat_state(network.weights)
    return {".".join(map(str, path)): variable.shape for path, variable in flat}


def count(layers: list[Any]) -> int:
    return sum(int(np.prod(shape)) for shape in arrays(layers).values())


PLAIN = settings(optimizer="sgd", momentum=0.0)
STANDARD: dict[str, Any] = {"epochs": 8, "batch_size": 4, "views": "flip", "schedule": {"step": [0.5], "factor": 0.1}}


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Iterator[None]:
    """Compile without optimization: these networks run for a moment, and the battery has what users run."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[float, Any]]]:
    """A trained model's folder and what it reported, for claims that only read them."""
    folder = tmp_path_factory.mktemp("flax")
    return folder, trained(folder, **STANDARD)[1]


def test_it_reports_at_most_twenty_times_in_an_epoch(standard: Any) -> None:
    assert 10 < sum(epoch <= 1 for epoch, _ in standard[1]) <= 20


def test_a_schedule_sets_the_rate_of_every_step(standard: Any) -> None:
    rates = {epoch: values["learning_rate"] for epoch, values in standard[1]}
    assert [rates[4.0], rates[5.0]] == pytest.approx([0.01, 0.001])


def test_saved_arrays_are_named_by_their_place_in_the_list(standard: Any) -> None:
    held = load_file(standard[0] / cnn.WEIGHTS)
    norm = {f"inner.layers.1.{name}" for name in ("scale", "bias", "mean", "var")}
    assert set(held) == {"mean", "deviation", "inner.layers.0.kernel", "head.kernel", "head.bias"} | norm
    np.testing.assert_allclose(held["mean"], channel_statistics(toy()[0])[0], rtol=1e-6)


def test_saved_settings_describe_the_same_network(standard: Any) -> None:
    assert cnn.Settings.restore(standard[0] / cnn.SETTINGS) == settings(**STANDARD)


def test_prediction_takes_any_number_of_images(standard: Any) -> None:
    predict = cnn.load(standard[0])
    images, _ = toy(steps.PREDICTED + 3)
    whole = predict(images)
    assert whole.shape == (steps.PREDICTED + 3, 3)
    assert predict(images[:0]).shape == (0, 3)
    np.testing.assert_allclose(predict(images[-1:]), whole[-1:], atol=1e-6)


def test_folds_share_what_is_compiled(standard: Any, tmp_path: Path) -> None:
    described = settings(**STANDARD)
    compiled: list[Any] = [each(described) for each in (steps.preparing, steps.training, steps.logits)]
    trained(tmp_path, seed=2, **STANDARD)
    assert [each._cache_size() for each in compiled] == [1, 1, 1]


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    exploding: dict[str, Any] = {"layers": ["flatten", {"dense": 4, "l2": 1}], "learning_rate": 10, "batch_size": 2}
    with pytest.raises(UserError, match=r"train_loss is (nan|inf) after 1 epochs; lower learning_rate"):
        trained(tmp_path, optimizer="sgd", schedule="constant", **exploding)


CHANGED: dict[str, Any] = {"augmentation": ["flip"], "ema_decay": 0.9}
CHANGED |= {"layers": [*LAYERS[:3], {"dropout": 0.1}, LAYERS[3]], "early_side": 0.7, "early_share": 0.5, "epochs": 2}


def test_same_seed_gives_the_same_file_whatever_was_trained_before_it_and_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = []
    for number, seed in enumerate((1, 2, 1)):
        (tmp_path / f"{number}").mkdir()
        trained(tmp_path / f"{number}", seed=seed, **CHANGED)
        files.append((tmp_path / f"{number}" / cnn.WEIGHTS).read_bytes())
    assert files[0] == files[2] != files[1]
    assert capfd.readouterr() == ("", "")


def test_parameters_are_those_of_the_layers() -> None:
    small: list[Any] = [{"conv": 32}, {"max_pool": 2}, "flatten", {"dense": 100}]
    assert count(small) == (27 * 32 + 32) + (6 * 6 * 32 * 100 + 100) + (100 * 3 + 3)
    inner: list[Any] = [{"conv": 16, "stride": 2, "use_bias": False}, "batch_norm"]
    deep: list[Any] = [{"conv": 8, "kernel": 5, "padding": "valid"}, {"residual": inner}, "global_max_pool"]
    assert count(deep) == (75 * 8 + 8) + (9 * 8 * 16) + (2 * 16) + (8 * 16) + (16 * 3 + 3)
    assert count([{"whiten": 2}, "global_average_pool"]) == 24 + (24 * 3 + 3)


def test_every_kind_of_layer_builds_and_trains(tmp_path: Path) -> None:
    layers: list[Any] = [
        {"conv": 4, "kernel": 5, "stride": 2, "activation": "gelu", "l2": 0.001},
        {"average_pool": 2, "stride": 1, "padding": "same"},
        {"residual": [{"conv": 6, "stride": 2, "use_bias": False}, "batch_norm", {"activation": "silu"}]},
        "max_pool",
        {"dropout": 0.2},
        "flatten",
        {"dense": 8, "activation": "relu", "l2": 0.001},
        {"batch_norm": 0.5, "epsilon": 0.01},
        {"residual": [{"dense": 8, "use_bias": False}]},
    ]
    predicted, _ = trained(tmp_path, layers=layers, epochs=1, precision="bfloat16")
    assert np.isfinite(predicted).all()


def test_a_penalty_counts_the_squares_of_its_layers_kernel_alone() -> None:
    made = Network(settings(layers=["flatten", {"dense": 2, "l2": 0.5}, {"dense": 2}]), 0)
    _, network, _ = steps.parts(made)
    kernel = np.asarray(network.weights["inner"]["layers"][1]["kernel"][...])
    assert float(penalty(network.weights)) == pytest.approx(0.5 * (kernel**2).sum(), rel=1e-5)


@pytest.mark.parametrize("name", get_args(cnn.Params.model_fields["optimizer"].annotation))
def test_every_optimizer_goes_downhill(name: Any) -> None:
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 4, 8)), jnp.float32)
    made: Any = updates(params(optimizer=name))
    held, state = {"kernel": weights}, made.init({"kernel": weights})
    for _ in range(3):
        moves, state = made.update({"kernel": 2 * held["kernel"]}, state, held)
        held = {"kernel": held["kernel"] + 0.01 * moves["kernel"]}
    assert float((held["kernel"] ** 2).sum()) < float((weights**2).sum())


def test_decay_shrinks_kernels_and_spares_biases() -> None:
    made: Any = updates(params(optimizer="sgd", weight_decay=0.5))
    held = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    moves, _ = made.update(optax.tree.zeros_like(held), made.init(held), held)
    np.testing.assert_allclose(held["kernel"] + 0.1 * moves["kernel"], 0.95)
    np.testing.assert_allclose(moves["bias"], 0)


def test_muon_takes_a_step_of_equal_length_in_every_direction_of_a_kernel() -> None:
    gradient = np.random.default_rng(0).normal(size=(36, 8)) * np.logspace(0, 1, 8)
    made: Any = updates(params(optimizer="muon"))
    kernel = jnp.zeros((3, 3, 4, 8))
    moves, _ = made.update(jnp.asarray(gradient, jnp.float32).reshape(kernel.shape), made.init(kernel), kernel)
    singular = np.linalg.svd(np.reshape(moves, (36, 8)), compute_uv=False)
    assert np.linalg.cond(gradient) > 8
    assert singular.max() / singular.min() < 2


def test_the_weights_move_by_the_rate() -> None:
    network, fixed = steps.initial(PLAIN)(0)
    task = steps.Task(fixed, jnp.ones(3), jax.random.key(0))
    step, state = steps.training(PLAIN), steps.begin(network, PLAIN.params)
    images, labels = toy(16)
    batch = (images, jax.nn.one_hot(labels, 3))
    moved = [step(state, task, *batch, 0, rate, size=(12, 12))[0].trained.weights for rate in (0.1, 0.2)]
    before = np.asarray(network.weights["head"]["kernel"][...])
    first, second = (np.asarray(each["head"]["kernel"][...]) - before for each in moved)
    assert np.abs(first).max() > 0
    np.testing.assert_allclose(second, 2 * first, rtol=1e-4, atol=1e-7)


def test_a_plateau_lowers_the_rate_when_the_loss_stays_but_not_below_the_smallest() -> None:
    schedule = {"plateau": 2, "factor": 0.5, "smallest": 0.004}
    rates, seen = Rates(params(schedule=schedule), 10), []
    for total in (1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5):
        rates.epoch_ended(total)
        seen.append(rates[0])
    assert seen == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.005, 0.004, 0.004, 0.004])


def test_training_stops_when_the_validation_loss_no_longer_falls_and_keeps_the_best_network(tmp_path: Path) -> None:
    images, labels = toy()
    noise = np.random.default_rng(1).permutation(labels)
    said: dict[float, Any] = {}
    stopping = params(validation_fraction=0.25, patience=2, epochs=40, learning_rate=0.1, schedule="constant")
    cnn.fit(images, noise, stopping, seed=1, folder=tmp_path, report=lambda epoch, values: said.update({epoch: values}))
    assert 3 <= max(said) < 40
    assert {"validation_accuracy", "train_accuracy"} <= set(said[1.0])
    losses = {epoch: values["validation_loss"] for epoch, values in said.items() if epoch.is_integer()}
    assert losses[max(losses)] > min(losses.values())
    assert max(losses) == 2 + min(losses, key=losses.__getitem__)
    _, kept = carve(noise, 0.25, seed=1)
    found = -cnn.load(tmp_path)(images[kept])[np.arange(len(kept)), noise[kept]].mean()
    assert found == pytest.approx(min(losses.values()), rel=1e-5)


LOGITS = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
TARGETS = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def test_the_focal_loss_takes_less_from_what_is_classified_well() -> None:
    p = np.exp(2) / (np.exp(2) + 2), np.exp(5) / (np.exp(5) + 2)
    expected = np.mean([-((1 - each) ** 2) * np.log(each) for each in p])
    assert float(loss(params(loss="focal"), LOGITS, TARGETS, jnp.ones(3))) == pytest.approx(expected, rel=1e-4)
    plain = loss(params(loss="focal", focal_gamma=0, label_smoothing=0.1), LOGITS, TARGETS, jnp.ones(3))
    assert float(plain) == pytest.approx(float(loss(params(label_smoothing=0.1), LOGITS, TARGETS, jnp.ones(3))))


def test_the_focal_loss_of_a_certain_row_has_a_finite_slope() -> None:
    slope = jax.grad(lambda logits: loss(params(loss="focal", focal_gamma=0.5), logits, TARGETS, jnp.ones(3)))
    assert np.isfinite(slope(LOGITS * 100)).all()


def test_a_class_counts_by_its_factor() -> None:
    factors = jnp.array([3.0, 1.0, 1.0])
    rows = [float(loss(params(), LOGITS[i : i + 1], TARGETS[i : i + 1], jnp.ones(3))) for i in (0, 1)]
    assert float(loss(params(), LOGITS, TARGETS, factors)) == pytest.approx((3 * rows[0] + rows[1]) / 2)


def test_balanced_weights_make_a_rare_class_count() -> None:
    images, labels = toy()
    rare = np.flatnonzero((labels != 2) | (np.arange(96) < 6))
    plan = settings(class_weights="balanced")
    made = Training(images[rare], labels[rare], plan, None, seed=1, report=lambda epoch, values: None)
    np.testing.assert_allclose(made.task.factors, 66 / (3 * np.array([32, 32, 2])), rtol=1e-6)


CHANGES: list[Any] = [
    "flip",
    {"flip": "vertical"},
    {"shift": 2},
    {"translation": 0.2, "fill": "constant"},
    {"rotation": 0.1, "fill": "nearest"},
    {"zoom": 0.2},
    {"contrast": 0.5},
    {"brightness": 0.3},
    {"saturation": 0.8},
    {"hue": 0.3},
    {"gamma": 0.5},
    "channel_shuffle",
    {"erase": 1.0},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_change_depends_on_the_key_alone_and_differs_between_images(change: Any) -> None:
    ramp = np.linspace(0, 120, 12 * 12 * 3).reshape(12, 12, 3) + np.array([0, 40, 120])
    images = jnp.asarray(np.repeat(ramp[None], 8, axis=0), jnp.float32)
    made = jax.jit(lambda key: augmented(params(augmentation=[change]).augmentation, key, images))
    first, again, other = (np.asarray(made(jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first[1:] != first[:1]).any()
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 255.001


def test_a_shift_moves_whole_pixels_and_no_further_than_it_says() -> None:
    images = jnp.zeros((400, 12, 12, 3)).at[:, 6, 6].set(255)
    described = params(augmentation=[{"shift": 2, "fill": "constant"}]).augmentation
    moved = np.asarray(augmented(described, jax.random.key(0), images))[..., 0]
    _, rows, columns = np.nonzero(moved)
    assert set(np.unique(moved)) == {0, 255}
    assert set(rows) == set(columns) == {4, 5, 6, 7, 8}
    assert np.bincount(rows)[4:9].min() > 40


def test_a_change_that_jax_cannot_make_names_those_it_can() -> None:
    with pytest.raises(UserError, match=r"augmentation: .*rand_augment cannot be made with JAX; .*flip, shift.*erase"):
        params(augmentation=["flip", "rand_augment"])
    with pytest.raises(UserError, match=r"augmentation: .*flip alternating cannot be made with JAX; .*horizontal"):
        params(augmentation=[{"flip": "alternating"}])


@pytest.mark.parametrize("alphas", [{"mixup": 0.4, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}], ids=str)
def test_targets_are_mixed_by_the_share_of_the_pixels(alphas: Any) -> None:
    labels = np.arange(6)
    pixels = jnp.asarray(np.broadcast_to(labels[:, None, None, None], (6, 12, 12, 3)), jnp.float32)
    blended, targets = mixed(Mixing(**alphas), jax.random.key(3), pixels, jax.nn.one_hot(labels, 6))
    assert not np.array_equal(blended, pixels)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(blended.mean(axis=(1, 2, 3)), targets @ jnp.arange(6.0), rtol=1e-5)


def test_each_epoch_has_its_own_order_of_whole_batches() -> None:
    first, second, again = (np.array([*batches(np.arange(20), 6, seed=1, epoch=n)]) for n in (0, 1, 0))
    assert first.shape == (3, 6)
    assert len(set(first.ravel())) == 18
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)


def test_images_grow_to_their_size_and_stay() -> None:
    assert params(early_side=0.7, early_share=0.5).sizes((12, 12), 4) == [(8, 8), (12, 12), (12, 12), (12, 12)]
    assert params().sizes((12, 12), 2) == [(12, 12), (12, 12)]


def test_layers_for_one_size_alone_cannot_learn_from_images_that_grow() -> None:
    with pytest.raises(UserError, match="early_share: flatten needs images of one size"):
        params(layers=["flatten"], early_side=0.5, early_share=0.8)


def test_an_average_forgets_the_zeros_it_began_with() -> None:
    plan = params(ema_decay=0.999)
    network, _ = steps.initial(PLAIN)(0)
    state = steps.begin(network, plan)
    _, average = steps.averaging(plan).update(network, state.average)
    kept = steps.averaged(state._replace(average=average), plan)
    before, after = (each.weights["head"]["kernel"][...] for each in (network, kept))
    np.testing.assert_allclose(before, after, rtol=1e-3)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"conv": 4}], "layers end in shape .*global_average_pool"),
        ([{"conv": 4}, {"dense": 3}], r"layers\[1\] dense does not fit an input of shape \(12, 12, 4\): .*flatten"),
        (["flatten", {"conv": 4}], r"layers\[1\] conv does not fit an input of shape \(432,\): it expects an image"),
        ([{"conv": 3}, {"whiten": 2}], r"layers\[1\] whiten does not fit .*make it the first layer"),
        ([{"max_pool": 8}, {"max_pool": 8}], r"layers\[1\] max_pool does not fit .*too small"),
        ([{"residual": ["flatten", {"conv": 2}]}], r"residual\[1\] conv does not fit"),
        ([{"residual": ["global_max_pool"]}], r"layers\[0\] residual does not fit .*shape \(3,\)"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        trained(tmp_path, layers=layers)


def test_whitening_filters_come_from_the_pixels_and_stay_while_the_biases_learn(tmp_path: Path) -> None:
    images, labels = toy()
    block = params(layers=[{"whiten": 2}, {"activation": "relu"}, "global_max_pool"], weight_decay=0.5)
    cnn.fit(images, labels, block, seed=1, folder=tmp_path, report=lambda epoch, values: None)
    held = load_file(tmp_path / cnn.WEIGHTS)
    wanted = whitening_filters(images, 2, *channel_statistics(images))
    np.testing.assert_allclose(held["inner.layers.0.kernel"].transpose(3, 0, 1, 2), wanted, rtol=1e-6)
    assert (held["inner.layers.0.bias"] != 0).all()


def test_the_device_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_DEVICE", "cpu")
    assert session.device().platform == "cpu"
    for name, message in (("tpu", "expected cpu, cuda"), ("cuda:x", "expected cpu, cuda"), ("cuda:99", "JAX sees")):
        monkeypatch.setenv("FOLDSTACK_DEVICE", name)
        with pytest.raises(UserError, match=f"FOLDSTACK_DEVICE={name}.*{message}"):
            session.device()


COUNTS = np.array([2, 1, 1, 0, 3, 1, 1, 1])


def linear_step(chosen: np.ndarray, weights: np.ndarray | None = None, **changes: Any) -> tuple[np.ndarray, float]:
    """What one step over all of these rows at once makes of a linear network, and its loss."""
    images, labels = toy(8)
    linear: dict[str, Any] = {"layers": ["flatten"], "optimizer": "sgd", "momentum": 0.0, "augmentation": []}
    plan = settings(**linear, **changes, weight_decay=0, batch_size=32, epochs=1, schedule="constant")
    network, fixed = steps.initial(plan)(0)
    said: list[float] = []
    report = lambda epoch, values: said.append(values.get("train_loss", 0.0))  # noqa: E731
    made = Training(images[chosen], labels[chosen], plan, fixed, 1, report, weights).run(network)
    return np.asarray(made.weights["head"]["kernel"][...]), said[-1]


@pytest.mark.parametrize("balance", ["none", "balanced"])
def test_a_row_of_weight_2_teaches_as_if_it_stood_there_twice(balance: str) -> None:
    how: dict[str, Any] = {"class_weights": balance, "label_smoothing": 0.1}
    found, total = linear_step(np.arange(8), (COUNTS / COUNTS.mean()).astype(np.float32), **how)
    expected, expected_total = linear_step(np.repeat(np.arange(8), COUNTS), **how)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert total == pytest.approx(expected_total, rel=1e-5)
    assert np.abs(found - linear_step(np.arange(8), **how)[0]).max() > 1e-4


def test_a_mixture_and_the_validation_part_count_by_the_weights_of_their_rows() -> None:
    images, labels = toy(32)
    plan, weights = settings(mixup=1.0, validation_fraction=0.25), np.where(labels == 2, 0, 1.5).astype(np.float32)
    _, targets = steps.preparing(plan)(jax.random.key(0), images, labels, 0, weights)
    assert np.asarray(targets)[:, 2].max() == 0
    assert np.asarray(targets).sum() == pytest.approx(weights.sum(), rel=1e-5)
    network, fixed = steps.initial(plan)(0)
    made = Training(images, labels, plan, fixed, 1, lambda *_: None, weights)
    given = steps.predicted(steps.logits(plan), network, fixed, images, made.kept)
    logs = np.asarray(jax.nn.log_softmax(given))[np.arange(len(made.kept)), labels[made.kept]]
    expected = -(weights[made.kept] * logs).mean()
    assert made.validated(network)["validation_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_memory_that_runs_out_in_jax_is_known() -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED") as caught:
        jnp.zeros((1 << 44,)).block_until_ready()
    assert is_out_of_memory(caught.value)
