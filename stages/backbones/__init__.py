"""The contract of a backbone, and finding a recipe by name without importing any framework.

A recipe is one folder, `stages/backbones/<framework>/<recipe>/`, whose `__init__.py` has three names. Only numpy
crosses the line:

    Params                     a frozen pydantic model, extra="forbid": the block in params.yaml without
                               `framework`, `recipe`, `seeds` and `threads`. It has `epochs` and `batch_size`, is a
                               `vocabulary.block.Sized`: images of any size are scaled to its `image_size`; and has
                               `origin()`, where training may begin with weights: what they are, under which licence
                               and where from, by `history.ORIGIN`, or a UserError where they are not there.
    fit(images, labels, params, *, seed, folder, report, weights=None, soft_labels=None)
                               trains on uint8 [n, h, w, 3] and int64 [n], and leaves in `folder` all that `load` needs.
                               The images are an array or `ImageRows`, read batch by batch: they may exceed memory.
                               The rows are the training rows alone: a held-out label cannot leak, it is not there.
                               `weights`: how much each row counts, float32 [n], on average one, where the user says so.
                               `soft_labels`: what is learnt in place of the labels, the share of each class, float32
                               [n, k]; smoothing, mixing and the weights of classes apply to them too. A recipe may do
                               without: then it is no student's (`stages/distill.py`).
                               Another seed gives another model; a device that `FOLDSTACK_DEVICE` names and that is
                               not there is a UserError (`stages.running.devices.gpu`).
    load(folder) -> predict    predict(images) -> float32 log-probabilities [n, k]

A framework whose models can be served has a `graphs.py` beside its recipes, which writes them as ONNX: see
`stages/bundling/graphs.py`. No training depends on it.

Preprocessing, input size and test-time augmentation belong to the recipe and are saved with its weights. Weights are
safetensors or Keras `.weights.h5`, settings JSON: loading a model must not be able to run code.
"""

import importlib
import re
import zlib
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from pydantic import BaseModel

from stages.images.arrays import Images, Labels, LogProbabilities, Rows, TrainingImages, Weights
from stages.images.dataset import Dataset
from stages.images.scaling import scaled as scaled_dataset
from stages.running.errors import UserError
from stages.running.parameters import check, closest


@runtime_checkable
class Report(Protocol):
    """Takes what a recipe has to say while it trains."""

    def __call__(self, epoch: float, values: Mapping[str, float]) -> None:
        """Take the values reached after `epoch` epochs; a fraction moves the bar, a whole number enters the history.

        Names are the field's: `train_loss`, `train_accuracy`, `learning_rate`. Before the first epoch `prepared` alone
        is the share of what has to be computed first, such as what a frozen front makes of the images.
        """


@runtime_checkable
class Predict(Protocol):
    def __call__(self, images: Images) -> LogProbabilities: ...


@runtime_checkable
class Recipe(Protocol):
    """What a recipe's module offers."""

    Params: type[BaseModel]

    def fit(
        self,
        images: TrainingImages,
        labels: Labels,
        params: Any,
        *,
        seed: int,
        folder: Path,
        report: Report,
        weights: Weights | None = None,
    ) -> None: ...

    def load(self, folder: Path) -> Predict: ...


CHUNK = 4096
"""Images handed to a model at once: bounds memory where the images are larger than it."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
OURS = ("framework", "recipe", "seeds", "threads")
"""The keys of a block that are not the recipe's."""
MOST_SEEDS = 20
RESERVED = ("stack", "bundle", "students", "refit")
"""What a block cannot be called."""
EXTRAS = {"flax": "jax"}
"""The optional extra of pyproject.toml that a framework's recipes need."""


def names() -> list[str]:
    """Every recipe as `framework/recipe`, from the folders alone; `shared` is what a framework's recipes share."""
    folders = [path.parent for path in Path(__file__).parent.glob("*/*/__init__.py") if path.parent.name != "shared"]
    return sorted(f"{folder.parent.name}/{folder.name}" for folder in folders)


def check_name(framework: str, recipe: str) -> str:
    """The two as `framework/recipe`. Raises UserError with the closest for a recipe that is not there."""
    name, known = f"{framework}/{recipe}", names()
    if name not in known:
        raise UserError(f"unknown recipe {name!r}{closest(name, known)}")
    return name


def sources(block: Mapping[str, Any]) -> list[Path]:
    """The files and folders of ours that decide what `train` makes of a block, from the repository's root.

    The `deps` of `train` in dvc.yaml are these, the imports of every recipe lie within them, and finished folds are
    kept under their hash: tests/layout.py holds the three together. Raises UserError for a recipe that is not there.
    """
    check_name(block["framework"], block["recipe"])
    of_all = ("train.py", "running", "images/arrays.py", "images/dataset.py", "images/scaling.py")
    of_backbones = ("__init__.py", "fitting.py", "predicting.py", "vocabulary")
    of_framework = ("__init__.py", "shared", str(block["recipe"]))
    return [
        *(Path("stages", name) for name in of_all),
        *(Path("stages/backbones", name) for name in of_backbones),
        *(Path("stages/backbones", block["framework"], name) for name in of_framework),
    ]


def blocks(content: Mapping[str, Any], section: str = "backbones") -> dict[str, dict[str, Any]]:
    """The blocks of a section, in their order, as they stand in params.yaml. Raises UserError for bad ones.

    There is at least one of `backbones`; of `students`, none will do.
    """
    found = content.get(section)
    if section == "students" and not found:
        return {}
    if not isinstance(found, dict) or not found:
        raise UserError(f"params: {section}: got {found!r}; expected at least one block, such as `tiny: {{...}}`")
    for name, block in found.items():
        if not isinstance(name, str):
            how = f'write it in quotes, "{name}"'
            raise UserError(f"params: {section}: got the name {name!r}, which YAML reads as no text; {how}")
        if not NAME.fullmatch(name) or name in RESERVED:
            wanted = (
                f"lower-case letters, digits, _ and -, and none of {', '.join(RESERVED)}, which models/ holds besides"
            )
            raise UserError(f"params: {section}: got the name {name!r}; expected {wanted}")
        for key in ("framework", "recipe"):
            if not isinstance(block, dict) or not isinstance(block.get(key), str):
                raise UserError(f"params: {section}.{name}.{key}: missing; expected one of {', '.join(names())}")
    return found


def block(content: Mapping[str, Any], name: str, section: str = "backbones") -> dict[str, Any]:
    """One block by its name. Raises UserError with the closest name for one that is not there."""
    found = blocks(content, section)
    if name not in found:
        raise UserError(f"params: {section}: there is no {name!r}{closest(name, list(found))}")
    return found[name]


def resolve(
    block: Mapping[str, Any], *, place: str, weighted: bool = False, soft: bool = False
) -> tuple[Recipe, BaseModel]:
    """The recipe a block names and its parameters, checked. `place` names the block in errors.

    `weighted`: rows have weights; `soft`: it is to learn soft labels. Raises UserError for a recipe that takes none.
    """
    recipe = find(block["framework"], block["recipe"])
    taken = signature(recipe.fit).parameters
    if soft and "soft_labels" not in taken:
        how = "expected one whose fit takes `soft_labels`, such as pytorch/speedrun, pytorch/timm or keras/cnn"
        raise UserError(f"params: {place}.recipe: {block['recipe']!r} learns no soft labels; {how}")
    if weighted and "weights" not in taken:
        how = "give its fit `weights`, or set data.table.weight to null and take `weight` out of data.decisions"
        raise UserError(f"params: {place}.recipe: {block['recipe']!r} takes no weights of rows; {how}")
    own = {name: value for name, value in block.items() if name not in OURS}
    return recipe, check(own, recipe.Params, place=place)


def fold_seed(seed: int, backbone: str, fold: int) -> int:
    """A seed of its own for each model of each backbone, from 0 to 2**31 - 1."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(backbone.encode()), fold])
    return int(sequence.generate_state(1)[0] >> 1)


def seeds(block: Mapping[str, Any], *, place: str) -> int:
    """How many models each fold has. Raises UserError for what is no whole number from 1 to MOST_SEEDS."""
    found = block.get("seeds", 1)
    if type(found) is not int or not 1 <= found <= MOST_SEEDS:
        raise UserError(f"params: {place}.seeds: got {found!r}; expected a whole number from 1 to {MOST_SEEDS}")
    return found


def find(framework: str, recipe: str) -> Recipe:
    """Import one recipe, and with it its framework. Raises UserError for a name that is not there."""
    name = check_name(framework, recipe)
    try:
        return cast(Recipe, importlib.import_module(f"stages.backbones.{framework}.{recipe}"))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(framework)
        if extra is None or str(error.name).startswith("stages"):
            raise
        how = f"run `make setup`, or `uv pip install -r pyproject.toml --extra {extra}`"
        raise UserError(f"{name} needs the extra {extra}: there is no module {error.name}; {how}") from None


def epochs(params: BaseModel) -> float:
    """The epochs of a recipe's parameters, a field that the contract asks of them."""
    return float(getattr(params, "epochs"))  # noqa: B009  (BaseModel itself has none)


def scaled(dataset: Dataset, params: BaseModel) -> Dataset:
    """The dataset with the images that a recipe reads for these parameters, made once for all folds."""
    return scaled_dataset(dataset, getattr(params, "read_size")(dataset.images))  # noqa: B009


def weights(dataset: Dataset, rows: Rows) -> dict[str, Weights]:
    """What `fit` is given of these rows besides: their weights, unless all count alike."""
    given = dataset.index.weight
    if given is None or np.ptp(given[rows]) == 0:
        return {}
    return {"weights": (given[rows] / given[rows].mean(dtype=np.float64)).astype(np.float32)}


def predictions(
    predict: Predict, dataset: Dataset, rows: Rows, done: Callable[[int], None] = lambda n: None
) -> LogProbabilities:
    """What a model says of these rows, chunk by chunk; `done` is told how many images each of them had."""
    parts = []
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        parts.append(predict(dataset.take(chunk)))
        done(len(chunk))
    return np.concatenate(parts) if parts else np.empty((0, len(dataset.classes)), np.float32)
