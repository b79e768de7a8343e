"""What a trained timm network says of images."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.backbones.pytorch.shared import devices
from stages.backbones.pytorch.shared.zoo import prepared
from stages.backbones.pytorch.timm.parameters import Settings


@torch.inference_mode()
def log_probabilities(model: nn.Module, pixels: Tensor, settings: Settings) -> Tensor:
    """Log-probabilities [n, classes] of pixels [n, 3, h, w]: logits averaged over the views, normalised in float32."""
    params = settings.params
    inputs = prepared(pixels, settings.size, settings.mean, settings.deviation)
    views = [inputs, inputs.flip(3)] if params.views == "flip" else [inputs]
    kind = devices.dtype(params.precision, pixels.device)
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=kind == torch.bfloat16):
        logits = torch.stack([model(view).float() for view in views]).mean(0)
    return functional.log_softmax(logits, dim=1)
