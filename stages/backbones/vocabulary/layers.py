"""The layers that a network described in params.yaml may be made of. Each framework's recipes build them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from stages.backbones.vocabulary.short_forms import Kind, parser

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
"""Any of the above."""
Residual.model_rebuild()
