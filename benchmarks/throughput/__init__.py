"""Training throughput: the same network, batch and images, each side as its users run it.

    python -m benchmarks.throughput --rounds 3

Sides of one framework, in turn and each in a process of its own, train three epochs of so many steps on random images
of 32 x 32 pixels. The second epoch is timed, from the end of the first to its own: reading, augmentation and what a
loader does to begin an epoch count; imports, compilation and the first epoch do not. In PyTorch the network is the
ResNet of 11.2 million weights that `pytorch/speedrun` has, in Keras six convolutions of 64 to 256 channels; SGD with
Nesterov momentum everywhere. On a GPU, where the package `airbench` is installed, also its network and training beside
those of `pytorch/speedrun` as it comes.
"""

EPOCHS, TIMED = 3, 1
"""How many are trained, and which one is timed: one in the middle, so that batches made ahead for it and for the next
cancel."""
