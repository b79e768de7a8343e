"""The floating-point operations that training steps take, as the history tells them.

Counted are those of the model: products of matrices and convolutions, forward and backward, a multiplication and an
addition as two. Normalisation, activations, the changes of the images, the optimizer and validation are not. Their
rate over the device's peak is the model FLOPs utilization of Chowdhery et al., "PaLM", 2022, arXiv:2204.02311.
"""

from collections.abc import Callable, Hashable

from benchmarks.operations.peaks import Peak


class Operations:
    """Adds up the steps of an epoch."""

    def __init__(self, count: Callable[[Hashable], float | None], peak: Peak) -> None:
        """`count`: operations of one image in a step of some kind; None where they cannot be counted."""
        self.count, self.peak = count, peak
        self.known: dict[Hashable, float | None] = {}
        self.steps: dict[Hashable, int] = {}

    def add(self, images: int, kind: Hashable) -> None:
        """A step was made with so many images. Steps of one kind, such as one image size, cost the same per image."""
        if kind not in self.known:
            self.known[kind] = self.count(kind)
        self.steps[kind] = self.steps.get(kind, 0) + images

    def values(self) -> dict[str, float]:
        """What to report of the steps since the last call, by the names of the contract."""
        steps, self.steps = self.steps, {}
        costs = [self.known[kind] for kind in steps]
        images = sum(steps.values())
        if not images or None in costs:
            return {}
        total = sum(n * (cost or 0) for n, cost in zip(steps.values(), costs, strict=True))
        return {
            "images": images,
            "gflops_per_image": total / images / 1e9,
            "peak_tflops": self.peak.tflops,
            "peak_measured": int(self.peak.measured),
        }
