"""The files that are changed: small ones of every kind that a job or a server reads, made of the digits."""

import hashlib
import io
import json
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin

from serving.bundle import FORMAT
from stages.admitting import handout
from stages.backbones import predicting
from stages.images.collection import Data
from stages.images.dataset import Dataset, Index
from stages.images.decisions import records
from stages.images.decisions.records import Decision
from stages.images.decoding import AVIF
from stages.images.sources import digits
from stages.images.twins import table as twins
from stages.stacking.choosing.averaging import REFITTED
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.combiners.pools import Pool
from stages.stacking.predictions import tables

CLASSES, FOLDS, N = ("zero", "one", "two"), np.array([0, 1, -1]), 18
SIDE = 24
Files = dict[str, bytes]
"""By kind/name."""


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Some digits, uint8 [n, 8, 8, 3], and their labels."""
    found = digits.collect(Data.model_validate({"image_size": 8}))
    rows = np.concatenate([np.flatnonzero(found.labels == label)[: N // 3] for label in range(3)])
    order = rows[np.argsort(np.arange(N) % (N // 3), kind="stable")]
    images = {int(row): image for batch in found.read(np.sort(order)) for row, image in zip(*batch[:2], strict=True)}
    return np.stack([images[int(row)] for row in order]), found.labels[order]


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def images() -> Files:
    pixels = np.kron(drawn()[0][4, :, :, 0], np.ones((3, 3), np.uint8))
    grey = Image.fromarray(pixels)
    colour = Image.merge("RGB", (grey, Image.fromarray(255 - pixels), Image.fromarray(pixels.T.copy())))
    deep, text, turned = Image.fromarray(pixels.astype(np.uint16) * 17), PngImagePlugin.PngInfo(), Image.Exif()
    text.add_text("comment", "a" * 300, zip=True)
    turned[0x0112] = 6
    clear = colour.convert("RGBA")
    clear.putalpha(grey)
    frames = {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)]}
    found = {
        "grey.png": saved(grey, "PNG"),
        "colour.png": saved(colour, "PNG", pnginfo=text, exif=turned),
        "clear.png": saved(clear, "PNG"),
        "palette.png": saved(colour.quantize(16), "PNG", transparency=3),
        "deep.png": saved(deep, "PNG"),
        "animated.png": saved(colour, "PNG", **frames),
        "plain.jpg": saved(colour, "JPEG", exif=turned),
        "progressive.jpg": saved(colour, "JPEG", progressive=True, quality=95),
        "print.jpg": saved(colour.convert("CMYK"), "JPEG"),
        "lossy.webp": saved(colour, "WEBP", exif=turned),
        "lossless.webp": saved(clear, "WEBP", lossless=True),
        "animated.webp": saved(colour, "WEBP", **frames),
        "plain.gif": saved(colour, "GIF", transparency=0),
        "animated.gif": saved(colour, "GIF", **frames),
        "plain.bmp": saved(colour, "BMP"),
        "palette.bmp": saved(colour.quantize(16), "BMP"),
        "plain.ppm": saved(colour, "PPM"),
        "deep.tif": saved(deep, "TIFF"),
        "print.tif": saved(colour.convert("CMYK"), "TIFF", exif=turned),
        **{f"{way}.tif": saved(colour, "TIFF", compression=way) for way in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")},
        "fax.tif": saved(grey.convert("1"), "TIFF", compression="group4"),
    }
    if AVIF:
        found["plain.avif"] = saved(colour, "AVIF")
    return {f"image/{name}": content for name, content in found.items()}


def parameters() -> Files:
    paths = [Path("params.yaml"), *sorted(Path("profiles").glob("*.yaml"))]
    return {f"params/{path.name}": path.read_bytes() for path in paths}


def dataset(folder: Path) -> Dataset:
    pixels, labels = drawn()
    hashes = tuple(hashlib.sha256(image).hexdigest() for image in pixels)
    rows, fold = np.arange(N), np.repeat(np.resize(FOLDS, N // 3), 3)
    paths = tuple(f"{CLASSES[label]}/{row}.png" for row, label in enumerate(labels))
    weight = np.ones(N, np.float32)
    index = Index(rows, paths, hashes, hashes, labels, rows, np.stack([fold, fold]), weight)
    return Dataset.write(folder, pixels, index, CLASSES)


def probabilities(data: Dataset) -> np.ndarray:
    """Right for nearly all, float64 [n, 3]."""
    p = np.full((N, 3), 0.1) + 0.7 * np.eye(3)[data.labels]
    p[::7] = (0.5, 0.3, 0.2)
    return p


def tabled(data: Dataset, folder: Path) -> Files:
    """What is read beside a dataset: predictions, twins, decisions, an ensemble, predictions made elsewhere."""
    p, train, test = probabilities(data), np.flatnonzero(data.fold >= 0), data.test_rows
    rows = np.concatenate([train, test, test])
    models = np.concatenate([data.fold[train], np.repeat([0, 1], len(test))])
    log_p = np.log(p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    tables.write(folder / "a.parquet", rows, models, log_p[rows], CLASSES, ["a remark"])
    ends, numbers = np.array([0, 3]), np.array([[0.9, 1, 1, 0, 0], [0.8, 1, 1, 2, 0]], np.float32)
    twins.write(folder / "twins.parquet", twins.Pairs(ends, ends + 4, [twins.NEAR, twins.MIRROR], numbers))
    answers = pa.table(
        {"row": data.index.row, "fold": data.fold}
        | {f"p.{c}": p[:, n].astype(np.float32) for n, c in enumerate(CLASSES)}
    )
    pq.write_table(answers, folder / "images.parquet")
    pool = Pool(np.full((2, 3), 0.5))
    Ensemble(("a", "b"), CLASSES, "pool", pool, (pool, pool), REFITTED, 1.2, {"log_loss": 0.3}).write(folder)
    predicting.Predicted(rows, models, log_p[rows], 1.5).keep(folder, folder / "models")
    frame, p = handout.table(data.index)[["row", "sha256", "fold"]], p[handout.order(data.index)]
    frame = frame.assign(**{f"p.{name}": p[:, n] for n, name in enumerate(CLASSES)})
    frame.to_csv(folder / "p.csv", index=False)
    frame.to_parquet(folder / "p.parquet", index=False)
    row, fold = (frame[name].to_numpy() for name in ("row", "fold"))
    sha256, classes = np.array(frame["sha256"], str), np.array(CLASSES)
    np.savez(folder / "p.npz", row=row, fold=fold, sha256=sha256, classes=classes, p=p)
    made = {"reviewer": "a", "date": str(date(2026, 1, 1))}
    said = [{"action": "keep"}, {"action": "relabel", "to": "two"}, {"action": "weight", "weight": 0.5}]
    decided = [
        Decision.model_validate({"pixels": data.index.sha256[row], "label": CLASSES[data.labels[row]], **made, **each})
        for row, each in zip((0, 1, 3), said, strict=True)
    ]
    names = {"predictions": "a.parquet", "twins": "twins.parquet", "answers": "images.parquet", "stack": "stack.json"}
    found = {f"{kind}/{name}": (folder / name).read_bytes() for kind, name in names.items()}
    found |= {f"external/p{suffix}": (folder / f"p{suffix}").read_bytes() for suffix in (".csv", ".parquet", ".npz")}
    found[f"kept/{predicting.FILE}"] = (folder / predicting.FILE).read_bytes()
    return found | {"decisions/a.jsonl": records.text(decided).encode()}


def sources(data: Dataset) -> Files:
    """Tables of images, by their paths below `images` and with the images in them."""
    pngs = [saved(Image.fromarray(image), "PNG") for image in data.images]
    labels = [CLASSES[label] for label in data.labels]
    frame = pd.DataFrame({"image": [f"{row}.png" for row in range(N)], "label": labels, "fold": data.fold})
    frame = frame.assign(split=np.where(data.fold < 0, "test", "train"), weight=1.0)
    held = io.BytesIO()
    embedded = {"image": [{"bytes": png, "path": None} for png in pngs], "label": data.labels.tolist()}
    info = json.dumps({"info": {"features": {"label": {"names": CLASSES}}}})
    pq.write_table(pa.table(embedded).replace_schema_metadata({"huggingface": info}), held)
    found = {"table/a.csv": frame.to_csv(index=False).encode(), "table/held.parquet": held.getvalue()}
    return found | {f"beside/{row}.png": png for row, png in enumerate(pngs)}


def bundle(known: Files) -> Files:
    """A manifest, and the files that it names, without networks."""
    beside = {"stack.json": known["stack/stack.json"]}
    for name in ("strangeness.npy", "cascade.npy", "networks/students/s/strangeness.npy"):
        file = io.BytesIO()
        np.save(file, np.linspace(0, 3, 12))
        beside[name] = file.getvalue()
    one = {"recipe": "numpy/toy", "size": [8, 8], "networks": [], "operations": 1.0}
    step = {"first": ["a"], "threshold": 0.9, "rows": [6, 6], "temperature": 1.0}
    manifest = {
        "format": FORMAT,
        "commit": None,
        "folds": "all",
        "classes": CLASSES,
        "images": {"size": 8, "max_megapixels": 180, "white": 65535},
        "sets": {"coverage": 0.9, "rows": [6, 6]},
        "missing": {},
        "backbones": {"a": one, "b": one},
        "cascade": [step],
        "students": {"s": one | {"rows": 12, "temperature": 1.0, "strangeness": "networks/students/s/strangeness.npy"}},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in beside.items()},
    }
    found = {"manifest/manifest.json": json.dumps(manifest, indent=1).encode()}
    return found | {f"bundle/{name}": content for name, content in beside.items()}


def made() -> Files:
    """All of them; those of the kinds `beside` and `bundle` are there for others to be read with."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        data = dataset(folder)
        of_data = {
            f"dataset/{path}": (folder / path).read_bytes() for path in ("images.npy", "index.parquet", "classes.json")
        }
        (folder / "models").mkdir()
        known = tabled(data, folder)
        return {**images(), **parameters(), **of_data, **known, **sources(data), **bundle(known)}
