"""Any architecture of timm by name, trained from nothing or from pretrained weights, in one phase or in several.

Wightman, "PyTorch Image Models", github.com/huggingface/pytorch-image-models. Its optimizers, layer-wise decay of the
rate, mixup, CutMix, stochastic depth and averaged weights are parameters, off or mild by default. Rows
are resized to the network's input in batches, without worker processes. Pretrained weights often transfer best when
the head, which is new, learns first:

    phases:
      - {trainable: head, epochs: 3, learning_rate: 1e-3}
      - {trainable: 4, epochs: 7, learning_rate: 1e-5} # the last 4 blocks and what follows them

scikit-learn's digits at 32x32, 1,197 training rows, from nothing: test_resnet (0.37 M weights), 15 epochs, batch 64,
rate 3e-3, no flips: macro-F1 0.997 and 1.000 on 360 other rows (n = 2), 8 s on one core of an AMD EPYC, PyTorch 2.10.
"""

from pathlib import Path

from safetensors.torch import load_file

from stages.backbones import Predict, Report
from stages.backbones.pytorch.shared import devices, rows, zoo
from stages.backbones.pytorch.timm.parameters import Params, Settings
from stages.backbones.pytorch.timm.training import Phases, log_probabilities
from stages.backbones.vocabulary import pixels as pixels_of
from stages.images.arrays import Images, Labels, LogProbabilities, TrainingImages

__all__ = ["Params", "fit", "load"]
WEIGHTS, SETTINGS = "weights.safetensors", "settings.json"


def fit(images: TrainingImages, labels: Labels, params: Params, *, seed: int, folder: Path, report: Report) -> None:
    """Train on these rows alone and leave weights (the average, with `ema_decay`) and settings in `folder`.

    Raises UserError for weights that are not there or do not fit, for phases that ask for more blocks than there are,
    and for a loss that is no longer finite.
    """
    device = devices.device()
    settings = described(images, labels, params)
    generator = devices.seeded(seed, device)
    model = zoo.network(params.architecture, params.weights, settings.classes, settings.size, device, params.drop_path)
    model = Phases(model, settings, images, labels, generator, seed=seed).run(report)
    folder.mkdir(parents=True, exist_ok=True)
    zoo.save(model, folder / WEIGHTS)
    settings.save(folder / SETTINGS)


def load(folder: Path) -> Predict:
    """A function from images of any size to log-probabilities. Nothing is fetched from the network."""
    device = devices.device()
    settings = Settings.restore(folder / SETTINGS)
    params, classes = settings.params, settings.classes
    model = zoo.network(params.architecture, zoo.SCRATCH, classes, settings.size, device)
    model.load_state_dict(load_file(folder / WEIGHTS))

    def predict(images: Images) -> LogProbabilities:
        return rows.predicted(
            lambda pixels: log_probabilities(model, pixels, settings), images, params.batch_size, classes, device
        )

    return predict


def described(images: TrainingImages, labels: Labels, params: Params) -> Settings:
    """What must be known of the training rows later; pretrained weights bring their own normalisation."""
    published = zoo.published(params.architecture)
    mean, deviation = list(published.mean), list(published.std)
    if params.weights == zoo.SCRATCH:
        mean, deviation = pixels_of.channel_statistics(images)
    size = zoo.input_size(params.architecture, params.weights, params.image_size, images)
    return Settings(params=params, classes=int(labels.max()) + 1, size=size, mean=mean, deviation=deviation)
