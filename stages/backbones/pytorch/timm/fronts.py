"""A network cut in two where what is frozen in all phases ends: a front whose answers are computed once, and a tail.

What the front makes of an image is kept in the scratch folder, by the content of the image, for all folds and epochs
and for predicting. It sees a fixed number of views of each image in place of changes that are drawn at every step.
"""

import copy
import hashlib
import itertools
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor, nn

from stages.backbones import Report
from stages.backbones.pytorch.shared import devices, rows
from stages.backbones.pytorch.shared.features import Backbone, Compute, Extractor, Features, digests, in_chunks
from stages.backbones.vocabulary.changes import AnyChange
from stages.images.arrays import Images, TrainingImages
from stages.running.errors import UserError


@dataclass(frozen=True)
class Cut:
    """`place`: the first module of the tail. Front and tail share the tensors of the network that was cut."""

    place: str
    front: nn.Module
    tail: nn.Module


def cut(network: nn.Module, learning: set[str], size: devices.Size) -> Cut:
    """Before the first module that learns whole. Raises UserError for a network that is no chain there.

    `learning`: names of parameters; `network` in evaluation mode. That front and tail in turn are the network is tried.
    """
    frozen = {name for name, _ in network.named_parameters()} - learning
    begun: set[str] = set()
    done: list[str] = []  # ended before the first of `later` began, which learns whole
    later: list[str] = []

    def begins(name: str, module: nn.Module, *_: object) -> None:
        own = {f"{name}.{each}" for each, _ in module.named_parameters()}
        if name not in begun and (later or (own and own <= learning)):
            later.append(name)
        begun.add(name)

    def ends(name: str, *_: object) -> None:
        if not later:
            done.append(name)

    inner = [(name, module) for name, module in network.named_modules() if name]
    hooks = [module.register_forward_pre_hook(partial(begins, name)) for name, module in inner]
    hooks += [module.register_forward_hook(partial(ends, name)) for name, module in inner]
    with torch.inference_mode():
        network(probe(network, size))
    for hook in hooks:
        hook.remove()
    if frozen and later and all(any(within(name, module) for module in done) for name in frozen):
        found = Cut(later[0], without(network, later), without(network, done))
        if same(network, found, size):
            return found
    raise UserError(
        "front_views: this architecture cannot be cut where its frozen front ends; expected front_views: 0, or another "
        "number of blocks in trainable"
    )


def probe(network: nn.Module, size: devices.Size) -> Tensor:
    """Two images of noise on the network's device."""
    noise = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(next(network.parameters()).device, memory_format=torch.channels_last)


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def without(network: nn.Module, modules: Sequence[str]) -> nn.Module:
    """The network with those modules left out; it shares its tensors with the whole one."""
    found = copy.deepcopy(network, {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())})
    for name in modules:
        if not any(name != other and within(name, other) for other in modules):
            found.set_submodule(name, nn.Identity())
    return found


@torch.inference_mode()
def same(network: nn.Module, found: Cut, size: devices.Size) -> bool:
    """Whether front and tail in turn answer as the network does."""
    images = probe(network, size)
    try:
        expected = network(images)
        return bool((found.tail(found.front(images)) - expected).norm() <= 0.01 * expected.norm())
    except (RuntimeError, ValueError, IndexError):  # of shapes that a tail cannot take
        return False


class Front(Extractor):
    """Maps images, uint8 [n, h, w, 3], to what the front makes of them, as the tail takes it in."""

    def __init__(self, found: Cut, inputs: devices.Inputs, architecture: str, precision: str, batch_size: int) -> None:
        known = {"architecture": architecture, "precision": precision, "batch_size": batch_size}
        features, weights = f"before {found.place}", state_digest(found.front)
        size, mean, deviation = inputs.size, inputs.mean, inputs.deviation
        backbone = Backbone(size=size, mean=mean, deviation=deviation, features=features, weights=weights, **known)
        front: Compute = found.front.eval()
        super().__init__(backbone, lambda: front)

    def array(self, features: Tensor) -> Features:
        """In the number format that it was computed in, so that nothing is lost; channels last."""
        features = (features.permute(0, 2, 3, 1) if features.ndim == 4 else features).contiguous()
        return features.view(torch.int16 if features.dtype == torch.bfloat16 else features.dtype).numpy()

    def tensor(self, keys: Sequence[bytes]) -> Tensor:
        """What is kept under these keys, on the device."""
        kept = torch.from_numpy(self.store.read(keys))
        kept = (kept.view(torch.bfloat16) if kept.dtype == torch.int16 else kept).to(self.device)
        return kept.permute(0, 3, 1, 2) if kept.ndim == 4 else kept

    def of(self, pixels: Tensor) -> Tensor:
        """Of pixels uint8 [b, 3, h, w]; those that nobody has computed yet are, and then kept."""
        return self.tensor(self.known(pixels.permute(0, 2, 3, 1).cpu().numpy()))


def state_digest(network: nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


class Kept:
    """In the place of `training.augmented`: batches of what the front made of the views of each row.

    In every epoch a row shows the next of its views, so that after as many epochs as there are views it has shown all.
    """

    def __init__(
        self, front: Front, images: TrainingImages, views: int, augmentation: Sequence[AnyChange], generator: Generator
    ) -> None:
        """Computes what nobody has computed yet. Raises UserError for changes that make no such number of views."""
        self.front, self.views, self.device = front, views, generator.device
        flip, reach, rest = rows.leading(augmentation)
        distinct = math.inf if reach else 2 if flip else 1
        if rest or views > distinct:
            expected = "an augmentation of flip and shift alone" if rest else f"at most {distinct:g}, or a shift"
            raise UserError(f"front_views: {views} views of each image cannot be made; expected {expected}")
        self.flip, self.reach = flip is not None, reach
        self.first = torch.randint(views, (len(images),), generator=generator, device=generator.device)
        self.images = images

    def compute(self, seed: int, report: Report) -> None:
        """See to it that all is in the store."""
        self.check_room()

        def keys(chunk: Images) -> list[list[bytes]]:
            return [self.front.known(view(chunk, number, self.flip, self.reach)) for number in range(self.views)]

        chunks = in_chunks(self.images, keys, seed, lambda share: report(0, {"prepared": share}))
        self.keys = [list(itertools.chain(*of_view)) for of_view in zip(*chunks, strict=True)]

    def check_room(self) -> None:
        """Raises UserError where the disk has no room for what is still to come."""
        (key,), store = self.front.known(self.images[:1]), self.front.store
        folder, each = store.folder, store.rows[key].nbytes
        wanted, free = each * self.views * len(self.images), shutil.disk_usage(folder).free
        if wanted - each * len(store.rows) > free:
            raise UserError(
                f"front_views: {self.views} views of {len(self.images)} images take {wanted / 1e9:.1f} GB in {folder}, "
                f"where {free / 1e9:.1f} GB are free; expected fewer, or FOLDSTACK_SCRATCH to name another place"
            )

    def epoch(self, number: int) -> Compute:
        """As `training.Batches`."""
        shown = ((self.first + number) % self.views).tolist()
        return lambda batch: self.front.tensor([self.keys[shown[row]][row] for row in batch.tolist()])


def view(images: Images, number: int, flip: bool, reach: int) -> Images:
    """A view of each image, uint8: itself, its mirror where they `flip`, then both in turn, shifted.

    How far, up to `reach` pixels either way, says the content of the image, so that all folds agree.
    """
    mirrored, shifts = flip and number % 2 == 1, np.zeros((2, len(images)), np.int64)
    if number >= (2 if flip else 1):
        drawn = [hashlib.sha256(key + bytes([number])).digest() for key in digests(images)]
        shifts = np.array([[each[axis] % (2 * reach + 1) - reach for each in drawn] for axis in (0, 1)])
    moves = torch.from_numpy(shifts)
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    chosen = torch.arange(len(images))
    found = rows.views(pixels, chosen, moves[0], moves[1], torch.full((len(images),), mirrored))
    return np.ascontiguousarray(found.permute(0, 2, 3, 1).numpy())
