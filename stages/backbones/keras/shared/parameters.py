"""The words that the Keras recipes share, all of them of the vocabulary, and what Keras cannot make of them."""

from pydantic import field_validator

from stages.backbones.keras.shared.optimizers import Optimization
from stages.backbones.vocabulary import block
from stages.backbones.vocabulary.averaging import Averaging
from stages.backbones.vocabulary.changes import AnyChange, Flip
from stages.backbones.vocabulary.stopping import EarlyStopping


class Common(Optimization, block.Common, EarlyStopping, Averaging):
    """What every recipe's block has beside its network."""

    @field_validator("augmentation")
    @classmethod
    def can_be_made(cls, described: tuple[AnyChange, ...]) -> tuple[AnyChange, ...]:
        for number, change in enumerate(described):
            if isinstance(change, Flip) and change.flip == "alternating":
                expected = "horizontal, vertical or horizontal_and_vertical"
                raise ValueError(f"[{number}]: flip alternating cannot be made with Keras; expected {expected}")
        return described
