"""Twins: images that are nearly the same, found without labels and without a trained network.

`descriptors` describe parts of images by a few numbers, `search` compares all with all by these, `alignment` lays the
pixels of each candidate pair over each other, `finding` does the three in turn, `joining` makes groups of the pairs,
and `table` is the file that lists them.
"""
