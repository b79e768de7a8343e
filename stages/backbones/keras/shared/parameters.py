"""The words that the blocks of the Keras recipes share, and the optimizers and losses that they name."""

from typing import Any, Literal

import keras

from stages.backbones.vocabulary.block import Optimized
from stages.backbones.vocabulary.losses import Loss
from stages.backbones.vocabulary.schedules import Plateau, rates

Name = Literal["sgd", "adam", "adamw", "nadam", "lion", "rmsprop", "muon", "relative_muon"]


class Common(Optimized):
    """What every recipe's block has beside its network."""

    library = "Keras"
    optimizer: Name = "adamw"


class Muon(keras.optimizers.Muon):
    """Keras' Muon (https://kellerjordan.github.io/posts/muon), for convolutions too: each kernel is one matrix with a
    column for every filter. Dense layers, the last included, train by Muon too; biases and normalisation by Adam."""

    def _should_use_adamw(self, variable: Any) -> bool:
        return len(variable.shape) not in (2, 4)

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign_add(m, (gradient - m) * (1 - self.momentum))
        ahead = gradient * (1 - self.momentum) + m * self.momentum if self.nesterov else m
        self.move(variable, lr, self.orthogonal(ahead))

    def orthogonal(self, values: Any) -> Any:
        """The values with the singular values of their matrix brought near one."""
        matrix = keras.ops.reshape(values, (-1, values.shape[-1]))
        return self.zeropower_via_newtonschulz5(matrix, self.ns_steps)

    def move(self, variable: Any, lr: Any, direction: Any) -> None:
        self.assign_sub(variable, keras.ops.reshape(self.lr_adjust(lr * direction), variable.shape))


class RelativeMuon(Muon):
    """Muon for convolutions whose kernels keep their norm: the learning rate is their relative change in one step.

    Keras' Muon takes steps of fixed length; kernels grow under them, and the relative change falls faster than the
    schedule says. Batch normalisation behind a convolution makes its scale free, and weight decay without effect on it.
    Everything else trains by Adam, at a tenth of the learning rate. Three rounds of Newton-Schulz instead of five.
    """

    def _should_use_adamw(self, variable: Any) -> bool:
        return len(variable.shape) != 4

    def move(self, variable: Any, lr: Any, direction: Any) -> None:
        norm: Any = keras.ops.sqrt(keras.ops.sum(keras.ops.square(variable)))
        fixed = variable * (variable.shape[-1] ** 0.5 / (norm + 1e-7))
        self.assign(variable, fixed - lr * keras.ops.reshape(direction, variable.shape))


def optimizer(how: Common, steps: int) -> keras.Optimizer:
    """For a training of so many steps. Decay is decoupled from the gradient and spares biases and normalisation."""
    classes: dict[str, Any] = {
        "sgd": keras.optimizers.SGD,
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "nadam": keras.optimizers.Nadam,
        "lion": keras.optimizers.Lion,
        "rmsprop": keras.optimizers.RMSprop,
        "muon": Muon,
        "relative_muon": RelativeMuon,
    }
    name, options = how.optimizer, {"weight_decay": how.weight_decay}
    if name in ("sgd", "rmsprop", "muon", "relative_muon"):
        options["momentum"] = how.momentum
    if name in ("sgd", "muon", "relative_muon"):
        options["nesterov"] = how.nesterov
    if name in ("muon", "relative_muon"):
        options["adam_weight_decay"] = how.weight_decay
    if name == "relative_muon":
        options |= {"adam_lr_ratio": 0.1, "ns_steps": 3}
    table = rates(how.schedule, how.learning_rate, steps)

    def follow() -> Any:
        return keras.ops.take(table, keras.ops.minimum(made.iterations, steps - 1))

    # Only a number can be lowered during the training, only a function can follow the steps.
    made = classes[name](how.learning_rate if isinstance(how.schedule, Plateau) else follow, **options)
    made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made


def objective(params: Loss) -> keras.Loss:
    """From logits and class probabilities."""
    smoothing = params.label_smoothing
    if params.loss == "cross_entropy":
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    return keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=params.focal_gamma, from_logits=True, label_smoothing=smoothing
    )
