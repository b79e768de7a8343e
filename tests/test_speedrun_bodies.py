"""The recipe `pytorch/speedrun`: its residual body, its optimisers, and what a training may have besides."""

import numpy as np
import pytest
import torch  # noqa: TID253
from pydantic import ValidationError

from stages.backbones.pytorch import speedrun
from stages.backbones.pytorch.shared import rows
from stages.backbones.pytorch.shared.training import Average, Training, mixer
from stages.backbones.pytorch.speedrun.networks import Network, ResNet
from stages.backbones.pytorch.speedrun.updates import Updates
from stages.running.errors import UserError
from tests.contract import toy_set

RESNET = {"body": "resnet", "widths": [16, 16], "depth": 1}
SGD = {"optimizer": "sgd", "learning_rate": 0.2, "momentum": 0.9, "weight_decay": 5e-4}
LENGTH = {"steps": 4, "per_epoch": 2}
EVERYTHING = {
    "augmentation": ["flip", {"rotation": 0.05}, {"erase": 0.5}],
    "cutmix": 1,
    "mixup": 0.2,
    "ema_decay": 0.5,
    "loss": "focal",
    "class_weights": "balanced",
    "schedule": {"cosine": 0.1},
}


def params(**changes):
    return speedrun.Params(**{"epochs": 6, "batch_size": 32, "widths": [8, 16], **changes})


def trained(folder, seed=0, **changes):
    """A function that predicts, and what was reported while it was trained."""
    images, labels = toy_set()
    reports = []
    speedrun.fit(
        images,
        labels,
        params(**changes),
        seed=seed,
        folder=folder,
        report=lambda epoch, values: reports.append(values),
    )
    return speedrun.load(folder), reports


def small_resnet():
    torch.manual_seed(0)
    return ResNet(3, 4, 2, [16, 16], 1, "relu", 1.0)


def stepped(network, updates, steps=1):
    for step in range(steps):
        updates.prepare()
        batch = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        updates.apply(torch.nn.functional.cross_entropy(network(batch), torch.arange(8) % 3, reduction="sum"), 8)
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("first", "widths", "depth", "count"),
    [
        (64, [64, 128, 256, 512], 2, 11_172_170),
        (16, [128, 256, 512], 2, 10_961_370),
        (16, [160, 320, 640], 4, 36_479_194),
    ],
)
def test_the_known_residual_networks_have_as_many_weights_as_published(first, widths, depth, count):
    with torch.device("meta"):
        network = ResNet(10, first, 3, widths, depth, "relu", 1.0)
    assert sum(weight.numel() for weight in network.parameters()) == count


@pytest.mark.parametrize("patch", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(8, 8), (9, 21), (33, 33)])
def test_the_residual_network_takes_images_of_any_size_from_eight_pixels(size, patch):
    network = ResNet(3, 24, patch, [8, 8, 8, 8], 2, "gelu", 1.0)
    assert network(torch.randn(2, 3, *size)).shape == (2, 3)


def test_the_first_layer_keeps_the_size_and_every_stage_but_the_first_halves_it():
    network = ResNet(3, 8, 3, [8, 8, 8], 2, "relu", 1.0)
    first = network.first(torch.randn(1, 3, 32, 32))
    assert first.shape == (1, 8, 32, 32)
    assert network.stages(first).shape == (1, 8, 8, 8)


@pytest.mark.parametrize(
    "changes",
    [
        RESNET,
        {**RESNET, **SGD, "whiten": False, "patch": 3, "first_width": 8, "activation": "relu"},
        {**SGD, "learning_rate": 0.05, "schedule": {"one_cycle": 0.2}},
        {**RESNET, **SGD, "early_side": 0.75, "early_share": 0.5, "ema_decay": 0.8},
        {**EVERYTHING, "epochs": 12},
    ],
)
def test_it_learns_a_toy_set(tmp_path, changes):
    predict, _ = trained(tmp_path, **changes)
    images, labels = toy_set()
    predicted = predict(images)
    assert (predicted.argmax(1) == labels).mean() > 0.9
    np.testing.assert_allclose(np.exp(predicted).sum(1), 1, rtol=1e-5)


def test_mixed_targets_have_no_accuracy_to_report(tmp_path):
    for changes, known in (({}, True), ({"cutmix": 1}, False)):
        _, reports = trained(tmp_path / str(known), epochs=1, **changes)
        assert ("train_accuracy" in reports[-1]) == known


def loop(network, epoch=1):
    """The shared loop over eight images, so many times in an epoch, eight at a step; and updates of the network."""
    chosen, cpu = params(**SGD, batch_size=8), torch.device("cpu")
    training = Training(
        network,
        chosen,
        rows.on_device(*toy_set(8), cpu),
        torch.Generator(),
        inputs=lambda batch, step: batch / 255,
        dtype=torch.float32,
        forward=network,
        chosen=torch.arange(8).repeat(epoch),
    )
    return training, Updates(network, chosen, torch.float32, steps=epoch, per_epoch=epoch)


def test_a_loss_that_is_no_number_is_an_error_that_says_what_to_lower():
    network = small_resnet()
    torch.nn.init.constant_(network.head.weight, torch.inf)
    training, updates = loop(network)
    with pytest.raises(UserError, match="train_loss is nan after 1 epochs; lower learning_rate"):
        training.epoch(updates, lambda epoch, values: None)


def test_an_epoch_of_many_steps_gives_about_twenty_signs_of_life():
    """And none of them asks for the loss, which would wait for the device."""
    training, updates = loop(small_resnet(), epoch=51)
    reports = []
    values = training.epoch(updates, lambda epoch, values: reports.append((epoch, values)))
    assert 15 <= len(reports) <= 20
    assert [epoch for epoch, _ in reports] == sorted({epoch for epoch, _ in reports})
    assert all(0 < epoch < 1 and set(values) == {"learning_rate"} for epoch, values in reports)
    assert set(values) == {"train_loss", "train_accuracy", "learning_rate"}


@pytest.mark.parametrize(("mixup", "cutmix"), [(1, 0), (0, 1), (0.5, 0.5)])
def test_targets_are_mixed_as_their_images_are(mixup, cutmix):
    torch.manual_seed(0)
    mix = mixer(params(mixup=mixup, cutmix=cutmix), classes=4)
    targets = torch.arange(4)
    assert mix is not None
    images = targets.view(4, 1, 1, 1).expand(4, 3, 16, 16).float()
    shares = []
    for _ in range(20):
        mixed, probabilities = mix(images, targets)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), probabilities @ targets.float())
        shares.append(probabilities[1, 1].item())
    assert len(set(shares)) > 10
    assert mixer(params(), classes=4) is None


def test_the_average_is_of_the_steps_alone_its_statistics_too_and_leaves_the_training_alone():
    """Of two steps and a decay of 0.75 the later counts 4/7: Adam's bias correction, without a share of the start."""
    plain, network = small_resnet(), small_resnet()
    average, updates = Average(network, 0.75), Updates(network, params(**SGD), torch.float32, **LENGTH)
    states = []
    for _ in range(2):
        states.append(stepped(network, updates))
        average.update()
        if len(states) == 1:
            torch.testing.assert_close(dict(average.result.state_dict()), states[0], rtol=0, atol=0)
    kept = average.result.state_dict()
    for name in ("first.weight", "normalization.running_mean", "head.bias"):
        torch.testing.assert_close(kept[name], 3 / 7 * states[0][name] + 4 / 7 * states[1][name])
    assert kept["normalization.num_batches_tracked"] == 2
    alone = Updates(plain, params(**SGD), torch.float32, **LENGTH)
    stepped(plain, alone)
    torch.testing.assert_close(stepped(plain, alone), states[1])


def test_without_a_decay_the_network_itself_is_kept():
    network = small_resnet()
    assert Average(network, None).result is network


def test_the_rates_follow_a_straight_line_or_the_schedule_and_those_of_the_first_biases_end_early():
    network = Network(3, 24, 2, [8, 8], 2, "gelu", 1.0)
    rates = []
    updates = Updates(network, params(filter_lr=0.1, first_bias_epochs=1), torch.float32, **LENGTH)
    for _ in range(4):
        stepped(network, updates)
        biases = next(group for group in updates.optimizers[1].param_groups if group["short"])
        rates.append((updates.rate, biases["lr"]))
    wanted = [(0.1, 0.05), (0.075, 0.05 * 0.75 * 0.5), (0.05, 0), (0.025, 0)]
    assert rates == [pytest.approx(pair, abs=1e-9) for pair in wanted]
    assert not network.first_bias.requires_grad
    constant = Updates(network, params(**SGD, schedule="constant"), torch.float32, **LENGTH)
    stepped(network, constant, steps=3)
    assert constant.rate == pytest.approx(0.2)


def test_sgd_decays_filters_and_head_and_neither_biases_nor_normalisation():
    network = small_resnet()
    optimizer = Updates(network, params(**SGD), torch.float32, **LENGTH).optimizers[0]
    decays = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    for name, weight in network.named_parameters():
        decayed = name in ("first.weight", "head.weight") or ".conv" in name or "downsample" in name
        assert decays[id(weight)] == (5e-4 if decayed else 0), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.2}, "learning_rate has no effect with optimizer muon"),
        ({**SGD, "filter_lr": 0.1}, "filter_lr has no effect with optimizer sgd"),
        ({**RESNET, "first_bias_epochs": 1}, "first_bias_epochs has no effect with body resnet"),
        ({"first_width": 16}, "first_width has no effect with whiten true"),
        ({"body": "resnet", "widths": [20]}, "expected multiples of 8 from 16 on"),
        ({"body": "resnet", "widths": [8, 16]}, "expected multiples of 8 from 16 on"),
        ({"schedule": "plateau"}, "expected constant, cosine, one_cycle or step"),
    ],
)
def test_parameters_that_do_not_fit_together_are_an_error(changes, message):
    with pytest.raises(ValidationError, match=message):
        params(**changes)


COUNTS = np.array([2, 1, 1, 0, 3, 1, 1, 1])


def linear_step(chosen, weights=None, **changes):
    """What one step of the shared loop, over all of these rows at once, makes of a linear network."""
    images, labels = toy_set(8)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 3))
    block = params(**SGD, batch_size=32, augmentation=[], **changes)
    training = Training(
        network,
        block,
        rows.on_device(images[chosen], labels[chosen], torch.device("cpu"), weights),
        torch.Generator(),
        inputs=lambda batch, step: batch / 255,
        dtype=torch.float32,
        forward=network,
    )
    said = training.epoch(Updates(network, block, torch.float32, steps=1, per_epoch=1), lambda *_: None)
    return network[1].weight, said["train_loss"]


@pytest.mark.parametrize("balance", ["none", "balanced"])
def test_a_row_of_weight_2_teaches_as_if_it_stood_there_twice(balance):
    weights = (COUNTS / COUNTS.mean()).astype(np.float32)
    found, loss = linear_step(np.arange(8), weights, class_weights=balance, label_smoothing=0.1)
    expected, expected_loss = linear_step(np.repeat(np.arange(8), COUNTS), class_weights=balance, label_smoothing=0.1)
    torch.testing.assert_close(found, expected)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert (found - linear_step(np.arange(8))[0]).abs().max() > 1e-4


@pytest.mark.parametrize("changes", [{}, {"mixup": 1}, {"cutmix": 1}, {"loss": "focal"}])
def test_rows_of_weight_0_teach_nothing_however_they_are_mixed(changes):
    _, loss = linear_step(np.arange(8), np.zeros(8, np.float32), **changes)
    assert loss == 0


def test_a_mixture_counts_as_the_weights_of_its_rows_by_their_shares():
    images, labels = torch.rand(8, 3, 4, 4), torch.arange(8) % 3
    weights = torch.tensor(COUNTS, dtype=torch.float32)
    _, mixed = mixer(params(mixup=1.0), 3)(images, torch.nn.functional.one_hot(labels, 3) * weights[:, None])
    totals = [float(weights[labels == label].sum()) for label in range(3)]
    torch.testing.assert_close(mixed.sum(0), torch.tensor(totals))
    assert len(mixed.unique()) > 4
