"""The sides of timm: the loop of its train.py, of the parts that its wheel has."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import timm.data  # noqa: TID253  (a benchmark of one framework)
import timm.loss  # noqa: TID253
import timm.optim  # noqa: TID253
import timm.scheduler  # noqa: TID253
import timm.utils  # noqa: TID253
import torch  # noqa: TID253
from torch import nn  # noqa: TID253

from benchmarks.transfer import FILES, WARM, Job, run
from stages import backbones
from stages.backbones.pytorch.shared import zoo
from stages.backbones.pytorch.timm import updates

CPU = torch.device("cpu")
data, loss, optim = cast(Any, timm.data), cast(Any, timm.loss), cast(Any, timm.optim)
scheduler, utils = cast(Any, timm.scheduler), cast(Any, timm.utils)


def loader(job: Job, params: Any) -> Any:
    """Its own over a folder of PNG files, mirrored by chance and enlarged one by one."""
    mean, deviation = params.normalization()
    return data.create_loader(
        data.create_dataset("", str(job.folder / FILES)),
        input_size=(3, params.image_size, params.image_size),
        batch_size=params.batch_size,
        is_training=True,
        scale=(1.0, 1.0),
        ratio=(1.0, 1.0),
        color_jitter=0.0,
        interpolation="random",
        mean=mean,
        std=deviation,
        num_workers=job.workers,
        device=CPU,
    )


def network(job: Job, params: Any, frozen: bool) -> nn.Module:
    """With its weights; `frozen`: what no phase of the block trains, batch normalisation included."""
    classes = int(job.labels.max()) + 1
    model = zoo.weighted(params.architecture, params.weights, classes, {})
    if frozen:
        learning = set().union(*(updates.names(model, phase.trainable) for phase in params.phases))
        utils.freeze(model, modules_without(model, learning))
    return model


def modules_without(model: nn.Module, learning: set[str]) -> list[str]:
    """The outermost modules with parameters none of which learns."""
    found: list[str] = []
    for name, module in model.named_modules():
        own = {f"{name}.{each}" for each, _ in module.named_parameters()}
        if name and own and not own & learning and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found


def train(job: Job, few: bool, frozen: bool = False, bfloat16: bool = False, channels_last: bool = False) -> int:
    """All epochs of the job; the options are those of train.py, but for `frozen`, for which it has none."""
    _, resolved = backbones.resolve(job.block, place="transfer")
    params: Any = resolved
    model, batches = network(job, params, frozen), loader(job, params)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = optim.create_optimizer_v2(model, params.optimizer, params.learning_rate, params.weight_decay)
    criterion = loss.LabelSmoothingCrossEntropy(params.label_smoothing)
    plan, epochs = scheduler.create_scheduler_v2(
        optimizer, num_epochs=params.epochs, updates_per_epoch=len(batches), warmup_lr=1e-5
    )
    computing = partial(torch.autocast, "cpu", torch.bfloat16) if bfloat16 else nullcontext
    seen = 0
    for epoch in range(1 if few else epochs):
        most = WARM if few else len(batches)
        seen += train_epoch(epoch, model, batches, optimizer, criterion, plan, computing, channels_last, most)
        plan.step(epoch + 1)
    return seen


def train_epoch(
    epoch: int,
    model: nn.Module,
    batches: Any,
    optimizer: torch.optim.Optimizer,
    criterion: nn.Module,
    plan: Any,
    computing: Callable[[], AbstractContextManager[Any]],
    channels_last: bool,
    most: int,
) -> int:
    """One epoch, or its first steps. As there, bfloat16 needs no scaler, and the loss is read after every step."""
    losses, waits, steps = utils.AverageMeter(), utils.AverageMeter(), utils.AverageMeter()
    model.train()
    optimizer.zero_grad()
    seen, began = 0, time.time()
    for number, (inputs, targets) in enumerate(batches):
        if number == most:
            break
        waits.update(time.time() - began)
        if channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with computing():
            value = criterion(model(inputs), targets)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.update(value.item(), len(inputs))
        seen += len(inputs)
        steps.update(time.time() - began)
        plan.step_update(num_updates=epoch * len(batches) + number + 1, metric=losses.avg)
        began = time.time()
    return seen


SIDES = {
    "timm": train,
    "timm, bfloat16": partial(train, bfloat16=True, channels_last=True),
    "timm, frozen": partial(train, frozen=True),
    "timm, frozen, channels_last": partial(train, frozen=True, channels_last=True),
    "timm, frozen, bfloat16": partial(train, frozen=True, bfloat16=True, channels_last=True),
}


if __name__ == "__main__":
    run(SIDES)
