"""The optimizers by name, with the few settings that are worth a parameter."""

from typing import Any, Literal

import keras

Name = Literal["sgd", "adam", "adamw", "nadam", "lion", "rmsprop", "muon"]


class Muon(keras.optimizers.Muon):
    """Keras' Muon (https://kellerjordan.github.io/posts/muon), for convolutions too: each kernel is one matrix with a
    column for every filter. Dense layers, the last included, train by Muon too; biases and normalisation by Adam."""

    def _should_use_adamw(self, variable: Any) -> bool:
        return len(variable.shape) not in (2, 4)

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        shape = tuple(variable.shape)
        self.assign_add(m, (gradient - m) * (1 - self.momentum))
        ahead = gradient * (1 - self.momentum) + m * self.momentum if self.nesterov else m
        matrix = keras.ops.reshape(ahead, (-1, shape[-1]))
        update = self.zeropower_via_newtonschulz5(matrix, self.ns_steps)
        self.assign_sub(variable, keras.ops.reshape(self.lr_adjust(lr * update), shape))


def optimizer(name: Name, rate: Any, *, momentum: float, nesterov: bool, weight_decay: float) -> keras.Optimizer:
    """`rate` is a number or a schedule. Decay is decoupled from the gradient and spares biases and normalisation."""
    classes: dict[str, Any] = {
        "sgd": keras.optimizers.SGD,
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "nadam": keras.optimizers.Nadam,
        "lion": keras.optimizers.Lion,
        "rmsprop": keras.optimizers.RMSprop,
        "muon": Muon,
    }
    options: dict[str, Any] = {"weight_decay": weight_decay}
    if name in ("sgd", "rmsprop", "muon"):
        options["momentum"] = momentum
    if name in ("sgd", "muon"):
        options["nesterov"] = nesterov
    made = classes[name](rate, **options)
    made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made
