"""Floating-point operations of small networks, counted by hand: every framework has to find the same."""

from typing import Any

SIZE = (9, 12)
CONVOLUTION, DENSE = 2 * (3 * 3 * 3) * 4 * (5 * 6), 2 * 4 * 5
"""Forward: 4 filters of 3 x 3 over 3 channels on every other pixel of 9 x 12, and a dense layer from 4 to 5."""
HAND = 2 * CONVOLUTION + 3 * DENSE
"""Forward, gradients of the weights, and of the dense layer's input: the pixels need no gradient."""
LAYERS: list[Any] = [{"conv": 4, "stride": 2}, {"activation": "relu"}, "global_average_pool"]

_INNER = {"residual": [{"conv": 16, "stride": 2}, "batch_norm"]}
DEEP: list[Any] = [{"whiten": 2}, {"activation": "gelu"}, {"conv": 8}, {"max_pool": 2}, _INNER, "global_max_pool"]
"""A residual network over whitened patches, whose filters do not train and whose biases do."""
_WHITENING, _FILTERS = 2 * 12 * 24 * 8 * 11, 2 * 9 * 24 * 8 * 8 * 11
_BLOCK, _BRIDGE = 2 * 9 * 8 * 16 * 2 * 3, 2 * 8 * 16 * 2 * 3
DEEP_HAND = _WHITENING + 3 * (_FILTERS + _BLOCK + _BRIDGE + 2 * 16 * 5)
