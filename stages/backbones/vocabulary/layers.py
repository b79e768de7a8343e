"""The layers that a network described in params.yaml may be made of. Each framework's recipes build them."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from stages.backbones.vocabulary.progressive import Growing
from stages.backbones.vocabulary.short_forms import Kind, parser
from stages.running.errors import UserError, gist

Activation = Literal[
    "linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "hard_silu", "softplus", "tanh", "sigmoid"
]
Padding = Literal["same", "valid"]
Penalty = Annotated[float, Field(ge=0, le=1, description="factor of the sum of the squared weights added to the loss")]
Size = Annotated[int, Field(ge=1, le=64, description="pixels of the layer's input")]
Stride = Annotated[Size | None, Field(description="the pool's own size if left out")]
Rate = Annotated[float, Field(ge=0, lt=1)]


class Layer(Kind):
    """A kind of layer."""


class Conv(Layer):
    conv: int = Field(ge=1, le=4096, description="filters")
    kernel: Size = 3
    stride: Size = 1
    padding: Padding = "same"
    activation: Activation = "linear"
    use_bias: bool = Field(True, description="false in front of a batch_norm, which has its own")
    l2: Penalty = 0.0


class Whiten(Layer):
    whiten: Size = Field(2, description="pixels: side of the patches; gives 6 times its square filters")


class Dense(Layer):
    dense: int = Field(ge=1, le=65536, description="units")
    activation: Activation = "linear"
    use_bias: bool = True
    l2: Penalty = 0.0


class BatchNormalization(Layer):
    batch_norm: float = Field(
        0.9, ge=0, lt=1, description="share of the running statistics kept at a step; 0.99 needs thousands of steps"
    )
    epsilon: float = Field(1e-3, gt=0, le=0.1)


class Activate(Layer):
    activation: Activation


class MaxPool(Layer):
    max_pool: Size = 2
    stride: Stride = None
    padding: Padding = "valid"


class AveragePool(Layer):
    average_pool: Size = 2
    stride: Stride = None
    padding: Padding = "valid"


class GlobalAveragePool(Layer):
    global_average_pool: Literal[True] = True


class GlobalMaxPool(Layer):
    global_max_pool: Literal[True] = True


class Flatten(Layer):
    flatten: Literal[True] = True


class Dropout(Layer):
    dropout: Rate = Field(description="share of the values set to zero")


class Residual(Layer):
    """The layers' output added to their input; a 1x1 convolution fits the input's shape to it where they differ."""

    residual: tuple["AnyLayer", ...] = Field(min_length=1)


AnyLayer = Annotated[SerializeAsAny[Layer], BeforeValidator(parser(*Layer.__subclasses__()))]
Residual.model_rebuild()


class Layered(Growing):
    """The part of a recipe's block that describes its network layer by layer."""

    layers: tuple[AnyLayer, ...] = Field(min_length=1, description="without the last dense layer over the classes")

    @model_validator(mode="after")
    def fits_growing_images(self) -> Self:
        if self.early_share and any(isinstance(layer, Flatten) for layer in self.layers):
            expected = "global_average_pool or global_max_pool"
            raise UserError(f"early_share: flatten needs images of one size; expected {expected}")
        return self


X = TypeVar("X")
Shape = tuple[int, ...]
"""Of a layer's input or output, without the batch."""


def stacked(
    described: Sequence[Layer], x: X, apply: Callable[[Layer, X], X], shape: Callable[[X], Shape], *, path: str
) -> X:
    """What becomes of `x` by one layer after the other. `path` is how errors name the list.

    Raises UserError naming the first layer that does not fit, for which `apply` raises ValueError.
    """
    for number, layer in enumerate(described):
        try:
            check_input(layer, shape(x), first=(path, number) == ("layers", 0))
            x = apply(layer, x)
        except UserError:
            raise
        except ValueError as error:
            name = f"{path}[{number}] {layer.name()}"
            raise UserError(f"{name} does not fit an input of shape {shape(x)}: {gist(error)}") from None
    return x


def check_input(layer: Layer, shape: Shape, *, first: bool) -> None:
    if isinstance(layer, Whiten) and not first:
        raise ValueError("whiten expects the pixels themselves; make it the first layer")
    if isinstance(layer, Dense) and len(shape) != 1:
        raise ValueError("dense expects a flat input; put flatten or global_average_pool before it")
