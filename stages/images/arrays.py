"""The array types that cross module borders, with shape and dtype; the tests check them at run time."""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

Images = UInt8[np.ndarray, "n h w 3"]
"""RGB images, 0 to 255."""

Squares = UInt8[np.ndarray, "n size size 3"]
"""Images as high as wide."""

Labels = Int64[np.ndarray, " n"]
"""Class numbers, 0 to k - 1, in the order of `classes.json`."""

Rows = Int64[np.ndarray, " _"]
"""Row numbers into the dataset, any number of them."""

Numbers = Int64[np.ndarray, " n"]
"""One whole number per image, such as its group or its fold."""

LogProbabilities = Float32[np.ndarray, "n k"]
"""Natural logarithms of class probabilities; every row's exponentials sum to one."""

Stack = Float64[np.ndarray, "n m k"]
"""Log-probabilities of m backbones side by side, in the order of `params.yaml`."""

Mask = Bool[np.ndarray, " n"]
"""True for the rows that are meant."""
