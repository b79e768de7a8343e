"""timm's architectures: their names, and networks built from nothing or from weights, of timm, a package or a file."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import timm
import torch
from huggingface_hub import constants
from pydantic import AfterValidator, Field
from safetensors import SafetensorError
from timm.layers import PatchEmbed  # pyright: ignore[reportPrivateImportUsage]
from timm.models import PretrainedCfg, get_pretrained_cfg, load_state_dict
from torch import Tensor, nn
from torch.nn import functional

from stages.backbones.pytorch.shared import packages
from stages.backbones.pytorch.shared.devices import Inputs, Size
from stages.backbones.vocabulary.block import Sized, origin_of
from stages.images.arrays import TrainingImages
from stages.running.errors import UserError, gist

SCRATCH, PUBLISHED, PACKAGE = "none", "imagenet", "package"


def closest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: up to three near ones; timm's whole list has over a thousand."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else "; see timm's documentation for the names"


def check_architecture(name: str) -> str:
    """The name itself. Raises UserError with the closest ones for an architecture, or its tag, unknown to timm."""
    base, _, tag = name.partition(".")
    known = list(map(str, timm.list_models()))
    if base not in known:
        raise UserError(f"timm knows no architecture {name!r}{closest(base, known)}")
    tagged = list(map(str, timm.list_pretrained(f"{base}.*")))
    if tag and name not in tagged:
        raise UserError(f"timm knows no weights {tag!r} of {base}; expected one of {', '.join(tagged) or 'none'}")
    return name


def published(architecture: str) -> PretrainedCfg:
    """What timm says about an architecture's published weights: where they lie, input size, normalisation, classes."""
    return get_pretrained_cfg(architecture) or PretrainedCfg()


Architecture = Annotated[
    str, AfterValidator(check_architecture), Field(description="timm's name, with .tag where its weights are wanted")
]
Weights = Annotated[
    str, Field(min_length=1, description="none, imagenet (timm's, downloaded once), package (installed) or a file")
]


class Chosen(Sized):
    """The part of a recipe's block that names one of these networks."""

    enlarges = True
    architecture: Architecture = "resnet18"
    weights: Weights = SCRATCH

    def input_size(self, images: TrainingImages) -> Size:
        """`image_size` where it is given, else what pretrained weights were made for, else the size of the images."""
        if self.image_size is None and self.weights != SCRATCH:
            return published(self.architecture).input_size[1:]
        return super().input_size(images)

    def normalization(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of the channels, divided by 255, that pretrained weights were made for."""
        if self.weights == PACKAGE:
            wanted = packages.of(self.architecture)
            return [wanted.mean] * 3, [wanted.deviation] * 3
        known = published(self.architecture)
        return list(known.mean), list(known.std)

    def origin(self) -> dict[str, str]:
        """What the weights are, under which licence and where from, as far as that is known; nothing for `none`.

        Raises UserError for a package or a file that is not there.
        """
        if self.weights == PACKAGE:
            return packages.of(self.architecture).origin()
        if self.weights == PUBLISHED:
            known = published(self.architecture)
            told = {"weights": f"timm's {known.architecture}.{known.tag}", "licence": known.license}
            told["source"] = known.hf_hub_id or str(known.url)
            return {name: text for name, text in told.items() if text}
        return {} if self.weights == SCRATCH else origin_of(self.weights, PACKAGE)


def network(
    architecture: str, weights: str, classes: int, size: Size, device: torch.device, drop_path: float = 0.0
) -> nn.Module:
    """A network on that device, in evaluation mode, that maps float [n, 3, *size] to logits [n, classes].

    `weights`: `none`, `imagenet`, `package` or the path of a state dictionary. Raises UserError for weights that cannot
    be had or do not fit, an input size that the architecture cannot take and a drop_path that it does not know.
    """
    options: dict[str, Any] = {"drop_path_rate": drop_path or None}
    if published(architecture).fixed_input_size:
        options["img_size"] = size
    try:
        model: Any = weighted(architecture, weights, classes, options).eval()
        check_patches(model, architecture, size)
        with torch.inference_mode():  # an input size that does not fit shows here and not after an epoch
            shape = tuple(model(torch.zeros(1, 3, *size)).shape)
    except UserError:
        raise
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        unknown = "drop_path_rate" in str(error)
        reason = "takes no drop_path" if unknown else f"fails at image_size {size[0]} x {size[1]}: {gist(error)}"
        raise UserError(f"architecture {architecture} {reason}") from error
    assert shape == (1, classes), f"{architecture} gives {shape}"
    return model.to(device, memory_format=torch.channels_last)


def check_patches(model: nn.Module, architecture: str, size: Size) -> None:
    """Raises UserError for a size that whole patches do not fill: some transformers would overlook what is left."""
    embedding: Any = getattr(model, "patch_embed", None)
    if not isinstance(embedding, PatchEmbed) or embedding.dynamic_img_pad:
        return
    side = max(map(int, embedding.patch_size))
    if size[0] % side or size[1] % side:
        below = size[0] // side * side
        expected = f"{below} or {below + side}" if below else f"{side}"
        raise UserError(
            f"image_size {size[0]} x {size[1]} is no whole number of the {side} pixels of a patch of architecture "
            f"{architecture}; expected image_size: {expected}"
        )


def weighted(architecture: str, weights: str, classes: int, options: dict[str, Any]) -> nn.Module:
    """The network with its weights; a head for another number of classes is replaced by a fresh one."""
    if weights == SCRATCH:
        return timm.create_model(architecture, num_classes=classes, **options)
    if weights == PUBLISHED:
        return downloaded(architecture, classes, options)
    if weights == PACKAGE:
        path = packages.of(architecture).path()
        return given(architecture, renamed(read_state(path), architecture), classes, options, path)
    return given(architecture, read_state(Path(weights)), classes, options, Path(weights))


def downloaded(architecture: str, classes: int, options: dict[str, Any]) -> nn.Module:
    """The network with timm's published weights, out of the cache or from the network."""
    known = published(architecture)
    if not known.has_weights:
        raise UserError(f"timm publishes no weights of {architecture}; expected weights: none or weights: <path>")
    cache = constants.HF_HUB_CACHE if known.hf_hub_id else f"{torch.hub.get_dir()}/checkpoints"
    try:
        return timm.create_model(architecture, pretrained=True, num_classes=classes, **options)
    except OSError as error:
        raise UserError(
            f"the published weights of {architecture} are neither in the cache {cache} nor to be had from the network "
            f"({gist(error)}); get them on a machine that has access, or name a file with weights: <path>"
        ) from error


def renamed(state: dict[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """The tensors of a package under timm's names: equal in order, in shape and in the last part of the name."""
    wanted = timm.create_model(architecture).state_dict()
    for (name, value), (other, expected) in zip(state.items(), wanted.items(), strict=True):
        assert value.shape == expected.shape, f"{name} is no {other}"
        assert name.rpartition(".")[2] == other.rpartition(".")[2], f"{name} is no {other}"
    return dict(zip(wanted, state.values(), strict=True))


def given(architecture: str, state: dict[str, Tensor], classes: int, options: dict[str, Any], path: Path) -> nn.Module:
    """The network with these weights, every tensor accounted for; the file's own head decides the first size.

    timm's own conversions apply: other spellings of the names, position embeddings for another input size.
    """
    mistakes = []
    for head in head_sizes(architecture, state):
        overlay = {"state_dict": dict(state), "num_classes": head}
        try:
            model: Any = timm.create_model(
                architecture, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=head, **options
            )
        except (RuntimeError, KeyError) as error:
            mistakes.append(gist(error))
            continue
        model.pretrained_cfg.pop("state_dict", None)
        if head != classes:
            model.reset_classifier(classes)
        return model
    raise UserError(f"weights {path} are not those of architecture {architecture}: {mistakes[0]}")


def head_sizes(architecture: str, state: dict[str, Tensor]) -> list[int]:
    """The numbers of classes that the weights may be made for, the likeliest first; 0 is a network without head."""
    known = published(architecture)
    names = [known.classifier] if isinstance(known.classifier, str) else list(known.classifier or ())
    found = [len(state[f"{name}.weight"]) for name in names if f"{name}.weight" in state]
    return found[:1] or [known.num_classes, 0]


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dictionary from safetensors or PyTorch's format, the latter read without running code from it."""
    origin_of(str(path), PACKAGE)
    try:
        state = load_state_dict(str(path), weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, AttributeError, ValueError) as error:
        raise UserError(f"weights: {path} cannot be read as a state dictionary: {gist(error)}") from error
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights: {path} holds something else than named tensors; expected a state dictionary")
    return state


def prepared(pixels: Tensor, inputs: Inputs) -> Tensor:
    """Rows 0 to 255, [n, 3, h, w], as float32 [n, 3, *size], bicubic and normalised, in channels_last memory."""
    if pixels.shape[2:] != inputs.size:
        pixels = functional.interpolate(pixels.float(), inputs.size, mode="bicubic", antialias=True).clamp(0, 255)
    return inputs.normalized(pixels.contiguous(memory_format=torch.channels_last), torch.float32)
