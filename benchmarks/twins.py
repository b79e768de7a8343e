"""How many near-duplicates `split` finds, how many of its pairs are none, and how long it takes.

    python -m benchmarks.twins --data data/raw --planted 500
    python -m benchmarks.twins --data data/raw --sheet twins.png --between 0.75 0.8

Changed copies of --planted images for each transform, other images each time, are added; found are those that are
then in one group with their original. What is found before, among the images alone, is counted by its correlation,
with the pairs of two labels: twins have one label, images that are merely alike often two. As another estimate of
false pairs half of the images are turned upside down: what is then found between the halves is none, but for symmetric
images, and twice as many such pairs are to be expected among all. The seconds are those of the images alone. With
--sheet pairs of a range of correlations, drawn at random, are painted instead, to be looked at.
"""

import argparse
import io
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from stages.images import sources
from stages.images.collection import Data
from stages.images.decoding.pool import worker_count
from stages.images.twins import finding, joining
from stages.images.twins.table import MIRROR, Pairs
from stages.showing.command import command

BICUBIC = Image.Resampling.BICUBIC
BANDS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.01)
Transform = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A part of 81 to 94 % of height and of width, anywhere, as large as the whole was."""
    (width, height), (w, h) = image.size, rng.uniform(0.81, 0.94, 2)
    x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
    box = (x * width, y * height, (x + w) * width, (y + h) * height)
    return image.resize(image.size, BICUBIC, box=box)


def shift(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Moved by up to an eighth along both axes; what comes in is black, mirrored or the edge drawn out."""
    most = image.size[0] // 8
    down, right = 0, 0
    while not (down or right):
        down, right = rng.integers(-most, most + 1, 2)
    mode = ("reflect", "constant", "edge")[rng.integers(3)]
    wide = np.pad(np.asarray(image), ((most, most), (most, most), (0, 0)), mode=mode)
    return Image.fromarray(wide[most + down :, most + right :][: image.size[1], : image.size[0]])


def brightness(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Contrast of 0.6 to 1.4, brightness by up to 40 of 255."""
    contrast, brighter = rng.uniform(0.6, 1.4), rng.uniform(-40, 40)
    changed = (np.asarray(image, np.float64) - 128) * contrast + 128 + brighter
    return Image.fromarray(np.clip(changed, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Quality 30 to 90."""
    file = io.BytesIO()
    image.save(file, "jpeg", quality=int(rng.integers(30, 91)))
    return Image.open(file).convert("RGB")


def flip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Left for right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def scale(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Enlarged up to 1.25 times about the centre, or down to 0.8 times with a border, black or the edge drawn out."""
    size, times = image.size[0], rng.uniform(0.8, 1.25)
    if times >= 1:
        edge = size * (1 - 1 / times) / 2
        return image.resize(image.size, BICUBIC, box=(edge, edge, size - edge, size - edge))
    small = round(size * times)
    before = (size - small) // 2
    border = (before, size - small - before)
    pixels = np.asarray(image.resize((small, small), BICUBIC))
    return Image.fromarray(np.pad(pixels, (border, border, (0, 0)), mode=("edge", "constant")[rng.integers(2)]))


def mixed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Perhaps flipped, then cropped, shifted or scaled, then brightness, then JPEG."""
    flipped = flip(image, rng) if rng.random() < 0.5 else image
    moved = (crop, shift, scale)[rng.integers(3)](flipped, rng)
    return jpeg(brightness(moved, rng), rng)


TRANSFORMS: tuple[Transform, ...] = (crop, shift, brightness, jpeg, flip, scale, mixed)


def plant(images: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Changed copies, n of each transform in turn, and the rows of their originals."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(images))[: n * len(TRANSFORMS)]
    changed = [TRANSFORMS[k % len(TRANSFORMS)](Image.fromarray(images[row]), rng) for k, row in enumerate(rows)]
    return np.stack([np.asarray(image) for image in changed]), rows


def read(given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, without copies; --limit of them drawn by the seed."""
    data = Data.model_validate({"source": given.source, "path": str(given.data), "image_size": given.side})
    found = sources.collect(data)
    rows = np.sort(np.random.default_rng(given.seed).permutation(len(found.labels))[: given.limit])
    images = np.concatenate([batch.images for batch in found.read(rows)])
    first = np.sort(np.unique(images.reshape(len(images), -1), axis=0, return_index=True)[1])
    return images[first], found.labels[rows][first]


def recall(images: np.ndarray, n: int, seed: int) -> pd.DataFrame:
    """Found of each transform, and the correlations of the pairs."""
    changed, rows = plant(images, n, seed)
    pairs = finding.find(np.concatenate([images, changed]))
    group, _ = joining.join(pairs, np.arange(len(images) + len(changed)))
    total = len(images) + len(changed)
    wanted, code = rows * total + np.arange(len(images), total), pairs.row * total + pairs.other
    place = np.minimum(np.searchsorted(code, wanted), len(code) - 1)
    own = np.where(code[place] == wanted, pairs.correlation[place], np.nan)
    together = group[rows] == group[len(images) :]
    lines = []
    for k, transform in enumerate(TRANSFORMS):
        mine = np.arange(len(rows)) % len(TRANSFORMS) == k
        low = np.nanquantile(own[mine], 0.05) if np.isfinite(own[mine]).any() else np.nan
        found = {"found, %": 100 * together[mine].mean(), "5th percentile of their correlation": low}
        lines.append({"transform": transform.__name__, "n": mine.sum(), **found})
    every = {"transform": "all", "n": len(rows), "found, %": 100 * together.mean()}
    return pd.DataFrame([*lines, every])


def bands(pairs: Pairs, labels: np.ndarray) -> pd.DataFrame:
    """Pairs by their correlation."""
    lines = []
    for low, high in pairwise(BANDS):
        part = (pairs.correlation >= low) & (pairs.correlation < high)
        other = labels[pairs.row[part]] != labels[pairs.other[part]]
        images = len(np.union1d(pairs.row[part], pairs.other[part]))
        found = {"pairs": part.sum(), "images": images, "of two labels": other.sum()}
        lines.append({"correlation": f"{low} to {min(high, 1)}", **found})
    return pd.DataFrame(lines)


def upside_down(images: np.ndarray) -> pd.DataFrame:
    """Pairs between upright images and others upside down."""
    turned = images.copy()
    turned[1::2] = turned[1::2, ::-1]
    pairs = finding.find(turned, BANDS[0])
    crossing = pairs.pick(np.flatnonzero(pairs.row % 2 != pairs.other % 2))
    return bands(crossing, np.zeros(len(images), np.int64)).drop(columns="of two labels")


def sheet(images: np.ndarray, pairs: Pairs, path: Path, times: int = 3, across: int = 4) -> None:
    """The pairs side by side, the second mirrored back, under each rows and correlation."""
    side = images.shape[1] * times
    width, height = 2 * side + 10, side + 16
    page = Image.new("RGB", (across * width, -(-len(pairs.row) // across) * height), "white")
    draw = ImageDraw.Draw(page)
    for place, (row, other, kind) in enumerate(zip(pairs.row, pairs.other, pairs.kind, strict=True)):
        x, y = place % across * width, place // across * height
        second = images[other][:, ::-1] if kind == MIRROR else images[other]
        for k, image in enumerate((images[row], second)):
            shown = Image.fromarray(np.ascontiguousarray(image)).resize((side, side), BICUBIC)
            page.paste(shown, (x + k * side, y))
        draw.text((x, y + side + 1), f"{row} {other} {kind} {pairs.correlation[place]:.2f}", fill="black")
    page.save(path)


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.twins", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data.path")
    parser.add_argument("--source", default="cifar10", help="data.source")
    parser.add_argument("--sheet", type=Path, help="a PNG to draw pairs into")
    parser.add_argument("--between", type=float, nargs=2, default=(finding.CORRELATION, 1.01), help="correlations")
    for name, default in {"planted": 500, "side": 32, "seed": 0, "pairs": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--limit", type=int, help="images, drawn at random")
    given = parser.parse_args()
    images, labels = read(given)
    start, cpu = time.perf_counter(), time.process_time()
    found = finding.find(images, BANDS[0])
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    if given.sheet:
        low, high = given.between
        part = np.flatnonzero((found.correlation >= low) & (found.correlation < high))
        drawn = np.random.default_rng(given.seed).permutation(part)[: given.pairs]
        sheet(images, found.pick(drawn[np.argsort(found.correlation[drawn])]), given.sheet)
        return
    twins = found.pick(np.flatnonzero(found.correlation >= finding.CORRELATION))
    group, refused = joining.join(twins, np.arange(len(images)))
    sizes = np.bincount(group)
    shown = f"{len(images):,} images of {given.side} x {given.side} pixels"
    print(f"{shown}: {seconds:.0f} s, of {worker_count()} cores {cpu:.0f} s in all.")
    print(
        f"{len(twins.row):,} pairs, {(sizes[group] > 1).sum():,} images in {(sizes > 1).sum():,} groups, the largest "
        f"of {sizes.max()}; {refused} pairs refused.\n"
    )
    for table in (bands(found, labels), upside_down(images), recall(images, given.planted, given.seed)):
        print(table.to_markdown(index=False, floatfmt=".2f"), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
