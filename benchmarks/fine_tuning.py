"""What fine-tuning costs by its parts: images per second of a frozen front, of the tail that trains, and of both.

    OMP_NUM_THREADS=1 python -m benchmarks.fine_tuning --architecture tf_efficientnet_lite0 --side 160 --trainable 11

`front` is the forward pass of what is frozen, as when its answers are kept; `tail` a training step of the rest from
what is kept; `whole` a step of both. Each is measured by number format and threads, with --compiled by torch.compile
too. `mixed` is bfloat16 but for depthwise convolutions; `quick` is what training does, bfloat16 with the depthwise
convolutions of stages/backbones/pytorch/shared/depthwise.py; `folded` has the front's batch normalisation in its
convolutions. Weights are random, which changes no time. Every round measures all in turn, by the clock or, with
--processor, by the seconds of the processor in all threads, which a busy machine changes less. The load before and
after is printed.
"""

import argparse
import copy
import itertools
import os
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch  # noqa: TID253  (a benchmark of one framework)
from torch import Tensor, nn  # noqa: TID253
from torch.nn import functional  # noqa: TID253
from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: TID253

from benchmarks.results import middle
from stages.backbones.pytorch.shared import compiling, depthwise, devices, zoo
from stages.backbones.pytorch.timm import fronts, updates
from stages.showing import machine

CLASSES = 10
FORMATS = ("float32", "bfloat16", "mixed", "quick")
Pass = Callable[[], object]
Call = Callable[[Tensor], Tensor]


class Wide(nn.Module):
    """A convolution in float32, whatever is around it."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.convolution(x.float())


def widened(network: nn.Module) -> None:
    """Its depthwise convolutions in float32."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            network.set_submodule(name, Wide(module))


def folded(network: nn.Module) -> nn.Module:
    """Batch normalisation that follows a convolution within its parent as part of the convolution."""
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (name, module), (after, normalization) in itertools.pairwise(children):
            if isinstance(module, nn.Conv2d) and isinstance(normalization, nn.BatchNorm2d):
                parent.register_module(name, fuse_conv_bn_eval(module, normalization))
                parent.register_module(after, getattr(normalization, "act", nn.Identity()))
    return network


def computing(device: torch.device, how: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=how != "float32")


def forward(network: Call, images: Tensor, how: str) -> None:
    with torch.inference_mode(), computing(images.device, how):
        finished(network(images))


def step(call: Call, optimizer: torch.optim.Optimizer, inputs: Tensor, how: str) -> None:
    targets = torch.arange(len(inputs), device=inputs.device) % CLASSES
    with computing(inputs.device, how):
        logits = call(inputs).float()
    functional.cross_entropy(logits, targets).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    finished(logits)


def finished(result: Tensor) -> None:
    if result.device.type == "cuda":
        torch.cuda.synchronize()


def passes(given: argparse.Namespace, device: torch.device) -> dict[str, Pass]:
    """What is measured, by its name."""
    size = (given.side, given.side)
    images = torch.randn(given.batch, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    found: dict[str, Pass] = {}
    for how in given.formats:
        network = zoo.network(given.architecture, zoo.SCRATCH, CLASSES, size, device)
        {"mixed": widened, "quick": depthwise.quicken}.get(how, lambda network: None)(network)
        learning = updates.names(network, given.trainable)
        cut = fronts.cut(network, learning, size)
        updates.unfreeze(network, learning)
        with torch.no_grad(), computing(device, how):
            kept = cut.front(images)
        cuts = {"": cut.front, ", folded": folded(cut.front)}
        trained: dict[str, tuple[nn.Module, Tensor]] = {"tail": (cut.tail, kept), "whole": (network, images)}
        for name, front in cuts.items():
            found[f"front, {how}{name}"] = partial(forward, front, images, how)
            if given.compiled:
                found[f"front, {how}{name}, compiled"] = partial(forward, compiling.compiled(front), images, how)
        for name, (module, inputs) in trained.items():
            updates.train(module)
            optimizer = torch.optim.AdamW([each for each in module.parameters() if each.requires_grad])
            found[f"{name}, {how}"] = partial(step, module, optimizer, inputs, how)
            if given.compiled:
                found[f"{name}, {how}, compiled"] = partial(step, compiling.compiled(module), optimizer, inputs, how)
    return found


def measured(
    found: Mapping[str, Pass], rounds: int, repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of a pass of each, in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for run in found.values():
        run()  # compiles, and takes memory
    for _ in range(rounds):
        for name, run in found.items():
            start = clock()
            for _ in range(repeats):
                run()
            seconds[name].append((clock() - start) / repeats)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fine_tuning", description=__doc__)
    parser.add_argument("--architecture", default="tf_efficientnet_lite0")
    for name, default in {"side": 160, "trainable": 11, "batch": 64, "rounds": 3, "repeats": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--formats", nargs="*", default=FORMATS, choices=FORMATS)
    parser.add_argument("--compiled", action="store_true", help="also compiled, which takes minutes on a processor")
    parser.add_argument("--processor", action="store_true", help="seconds of the processor, not of the clock")
    given = parser.parse_args()
    clock = time.process_time if given.processor else time.perf_counter
    devices.keep_memory()
    device = devices.device()
    print(f"{machine.when(('torch', 'timm'))}; {machine.description()}; load before {os.getloadavg()[0]:.1f}")
    shape = f"side {given.side}, the last {given.trainable} blocks train, batch {given.batch}, n = {given.rounds}"
    print(f"{given.architecture}, {shape}; images per second of {'the processor' if given.processor else 'the clock'}")
    for threads in given.threads:
        torch.set_num_threads(threads)
        for name, seconds in measured(passes(given, device), given.rounds, given.repeats, clock).items():
            print(f"{name}, {threads} threads: {middle((given.batch / each for each in seconds), 1)}", flush=True)
    print(f"load after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
