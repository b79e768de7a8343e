"""A bundle answers as the stack was judged wherever it is copied, with nothing but numpy, Pillow and onnxruntime."""

import csv
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper, save_model
from PIL import Image

from serving import Bundle, check
from serving import predict as batch
from serving.bundle import FORMAT, MANIFEST, sha256
from stages import bundle
from stages.bundling import graphs, operations, parity
from stages.images.dataset import Dataset
from stages.images.decoding import Wanted
from stages.images.decoding.pool import decode_all
from stages.images.scaling import resize
from stages.running.errors import UserError
from stages.stacking.predictions import files
from tests import alone, bundles
from tests.layout import imports

ROOT = Path(__file__).parent.parent
SERVED = ("__init__", "bundle", "cascade", "combining", "commands", "networks", "pictures", "predict")
ANSWER = """
import numpy as np
from serving import Bundle
answer = Bundle.load("copied").predict(np.load("images.npy"))
np.savez("answer.npz", p=answer.probabilities, sets=answer.sets)
print(*answer.labels)
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return bundles.made(tmp_path_factory.mktemp("made"), ["mean", "pool", "xgboost"])


def scored(folder):
    """The rows of the test set in metrics/images.parquet, in order: labels and probabilities."""
    table = pq.read_table(folder / "metrics/images.parquet").to_pandas()
    table = table[table["fold"] == -1].sort_values("row")
    return table["prediction"].tolist(), table[[f"p.{name}" for name in bundles.CLASSES]].to_numpy()


def test_a_copy_answers_as_judged_without_the_repository_and_without_what_trained_it(repository, tmp_path):
    alone.plant(tmp_path)
    shutil.copytree(repository / "models/bundle", tmp_path / "copied")
    data = Dataset.load(repository / "data")
    np.save(tmp_path / "images.npy", data.take(data.test_rows))
    command = alone.command(ANSWER, {"numpy", "PIL", "onnxruntime"})
    told = {"cwd": tmp_path, "env": alone.environment(), "capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, **told)
    assert done.returncode == 0, done.stderr
    labels, p = scored(repository)
    assert done.stdout.split() == labels
    answer = np.load(tmp_path / "answer.npz")
    np.testing.assert_allclose(answer["p"], p, atol=parity.TOLERANCE)
    covered = json.loads((repository / "metrics/conformal.json").read_text())
    truth = data.labels[data.test_rows]
    assert answer["sets"][np.arange(len(truth)), truth].mean() == pytest.approx(covered["coverage"])
    assert answer["sets"].sum(axis=1).mean() == pytest.approx(covered["size"])


def test_what_serves_imports_nothing_else_of_ours():
    names = set().union(*(imports(ROOT / "serving" / f"{name}.py") for name in SERVED))
    found = {name for name in names if name.startswith("stages") and (ROOT / name.replace(".", "/")).exists()}
    found |= {name for name in names if (ROOT / f"{name.replace('.', '/')}.py").is_file() and name.startswith("stages")}
    files = {Path(target).with_suffix("").as_posix() for _, target in alone.copied() if target.startswith("stages/")}
    modules = {name.replace("/", ".").removesuffix(".__init__") for name in files}
    assert found <= modules


@pytest.mark.parametrize(("combiner", "seeds"), [("logistic_extended", 1), ("greedy", 2)])
def test_other_combiners_and_several_seeds_answer_as_judged_too(combiner, seeds, tmp_path):
    folder = bundles.made(tmp_path, [combiner], seeds=seeds)
    data = Dataset.load(folder / "data")
    answer = Bundle.load(folder / "models/bundle").predict(data.take(data.test_rows))
    labels, p = scored(folder)
    assert answer.labels == labels
    np.testing.assert_allclose(answer.probabilities, p, atol=parity.TOLERANCE)


def test_the_manifest_says_what_it_is(repository):
    manifest = json.loads((repository / "models/bundle" / MANIFEST).read_text())
    files = {path.relative_to(repository / "models/bundle").as_posix() for path in bundle_files(repository)}
    assert set(manifest["files"]) == files - {MANIFEST}
    assert manifest["scores"] == json.loads((repository / "metrics/scores.json").read_text())
    assert manifest["classes"] == bundles.CLASSES
    assert manifest["missing"] == {}
    assert {"python", "numpy", "onnxruntime"} <= set(manifest["versions"])
    assert all(one["compared"]["right"] for one in manifest["backbones"].values())


def test_made_again_it_is_the_same_to_the_byte(copy, monkeypatch):
    monkeypatch.setattr(graphs, "export", bundles.export)
    made = []
    for _ in range(2):
        bundle.main()
        made.append({path.relative_to(copy): path.read_bytes() for path in bundle_files(copy)})
    assert made[0] == made[1]


def test_the_operations_of_a_network_are_those_of_its_sums_and_what_else_it_puts_out(tmp_path):
    weights = {"kernel": np.ones((6, 1, 3, 3)), "matrix": np.ones((3, 5))}
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels", "kernel"], ["maps"], group=3, strides=[2, 2]),  # 6 of 3 x 3 from 7 x 7
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("MatMul", ["positive", "matrix"], ["given"]),
    ]
    taken = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 7, 7, 3])
    given = helper.make_tensor_value_info("given", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(each.astype(np.float32), name) for name, each in weights.items()]
    graph = helper.make_graph(nodes, "small", [taken], [given], constants)
    path = tmp_path / "small.onnx"
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    pixels, maps = 7 * 7 * 3, 6 * 3 * 3
    expected = 2 * pixels + maps * 2 * (3 * 3) + maps + 6 * 3 * 5 * 2 * 3
    assert operations.count(path, np.ones((1, 7, 7, 3), np.uint8)) == expected


def bundle_files(folder):
    return [path for path in (folder / "models/bundle").rglob("*") if path.is_file()]


def test_a_file_that_was_changed_is_refused_by_name(copy):
    path = copy / "models/bundle/networks/left/fold-1.onnx"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"left/fold-1.onnx is not what the manifest says"):
        Bundle.load("models/bundle")
    path.unlink()
    with pytest.raises(UserError, match=r"left/fold-1.onnx is not there"):
        Bundle.load("models/bundle")


def test_a_manifest_that_was_changed_is_refused(copy):
    path = copy / "models/bundle" / MANIFEST
    content = path.read_text()
    assert '"coverage": 0.9' in content
    path.write_text(content.replace('"coverage": 0.9', '"coverage": 0.8'))
    with pytest.raises(UserError, match=r"manifest\.json was damaged or changed; copy the bundle again"):
        Bundle.load("models/bundle")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is not there; expected a bundle"),
        ("{", "is no manifest"),
        ("{}", "is no manifest"),
        ('{"format": 0}', "has format 0; expected"),
        (f'{{"format": {FORMAT}}}', "perhaps .KeyError"),
    ],
)
def test_what_is_no_bundle_is_refused(text, words, tmp_path):
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=rf"manifest\.json {words}"):
        Bundle.load(tmp_path)


def test_a_network_that_cannot_be_exported_is_named_and_fails_no_stage(tmp_path, capsys):
    folder = bundles.made(tmp_path, ["mean"], recipes=["toy", "strange"])
    assert "right is not in the bundle, which cannot answer without it: no such graph" in capsys.readouterr().out
    with pytest.raises(UserError, match="lacks the networks of right: no such graph"):
        Bundle.load(folder / "models/bundle")


def test_check_holds_and_names_the_network_that_differs(copy, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["check", "models/bundle"])
    check.main()
    assert capsys.readouterr().out.endswith("models/bundle answers as it was scored\n")
    networks = copy / "models/bundle/networks/right"
    shutil.copy(networks / "fold-0.onnx", networks / "fold-2.onnx")
    manifest = json.loads((copy / "models/bundle" / MANIFEST).read_text())
    manifest["files"]["networks/right/fold-2.onnx"] = sha256(networks / "fold-2.onnx")
    (copy / "models/bundle" / MANIFEST).write_text(json.dumps(files.sealed(manifest)))
    with pytest.raises(SystemExit) as ended:
        check.main()
    assert str(ended.value).startswith("error: right, fold-2, the stack: not what was scored")


def test_a_graph_that_no_framework_writes_is_an_objection_and_no_error(tmp_path):
    wanted = [graphs.Wanted("odd", "cnn", str(tmp_path), str(tmp_path / "odd.onnx"))]
    assert "flax/cnn cannot be exported to ONNX" in graphs.write("flax", wanted, (8, 8))["odd"].objection


def pictures(folder, images):
    """PNG files in two folders, and what is no image."""
    for number, image in enumerate(images):
        path = folder / f"{number % 2}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


def test_files_are_decoded_as_split_decodes_them(repository, tmp_path):
    rng = np.random.default_rng(0)
    shapes = [(40, 30, 3), (9, 8, 4), (8, 8, 3)]
    paths = [tmp_path / f"{number}.png" for number in range(len(shapes))]
    for path, shape in zip(paths, shapes, strict=True):
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(path)
    loaded = Bundle.load(repository / "models/bundle")
    (expected,) = decode_all([str(path) for path in paths], Wanted(bundles.SIZE))
    np.testing.assert_array_equal(loaded.pixels(paths), expected.images)
    np.testing.assert_array_equal(loaded.pixels([path.read_bytes() for path in paths]), expected.images)
    with pytest.raises(UserError, match=r"absent.png: No such file"):
        loaded.predict([paths[0], tmp_path / "absent.png"])


def test_no_image_has_no_answer_and_another_size_is_refused(repository):
    loaded = Bundle.load(repository / "models/bundle")
    assert loaded.predict([]).labels == []
    with pytest.raises(UserError, match=r"got uint8 \[2, 9, 8, 3\]; expected uint8 \[n, 8, 8, 3\]"):
        loaded.predict(np.zeros((2, 9, 8, 3), np.uint8))


def test_images_are_scaled_as_they_were_for_training():
    from serving.bundle import resized

    images = np.random.default_rng(1).integers(0, 256, (3, 12, 12, 3)).astype(np.uint8)
    for size in ((8, 8), (12, 12), (20, 16)):
        np.testing.assert_array_equal(resized(images, size), resize(images, size))


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_a_folder_is_classified_into_a_table(copy, name, monkeypatch, capsys):
    data = Dataset.load()
    folder = pictures(copy / "pictures", data.take(data.test_rows[:9]))
    monkeypatch.setattr(batch, "PART", 4)
    monkeypatch.setattr(sys, "argv", ["predict", str(folder), "--out", name])
    batch.main()
    answer = Bundle.load("models/bundle").predict(data.take(data.test_rows[:9]))
    expected = {f"{number % 2}/{number:03}.png": label for number, label in enumerate(answer.labels)}
    text = Path(name).read_text().splitlines() if name.endswith("csv") else []
    table = list(csv.DictReader(text)) or pq.read_table(name).to_pylist()
    assert {row["path"]: row["label"] for row in table} == expected
    order = [int(row["path"][2:5]) for row in table]
    p = np.array([[float(row[f"p.{each}"]) for each in bundles.CLASSES] for row in table])
    np.testing.assert_allclose(p, answer.probabilities[order], atol=1e-6)
    told = [{bundles.CLASSES[number] for number in np.flatnonzero(answer.sets[row])} for row in order]
    assert [set(row["set"].split("|")) for row in table] == told
    assert "broken.png: no PNG" in capsys.readouterr().err
    assert not list(copy.glob(".out*"))


def test_an_interrupted_run_goes_on_where_it_ended(copy, monkeypatch):
    data = Dataset.load()
    folder = pictures(copy / "pictures", data.take(data.test_rows[:9]))
    monkeypatch.setattr(batch, "PART", 3)
    monkeypatch.setattr(sys, "argv", ["predict", str(folder), "--out", "whole.csv"])
    batch.main()
    asked, most, predict = [], 2, Bundle.predict

    def counted(self, images):
        if len(asked) == most:
            raise KeyboardInterrupt
        asked.append(len(images))
        return predict(self, images)

    monkeypatch.setattr(Bundle, "predict", counted)
    monkeypatch.setattr(sys, "argv", ["predict", str(folder), "--out", "out.csv"])
    with pytest.raises(SystemExit):
        batch.main()
    assert asked == [3, 3]
    most = 9
    batch.main()
    assert asked == [3, 3, 3]
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_an_output_of_no_known_kind_is_refused(copy, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predict", "data", "--out", "out.xlsx"])
    with pytest.raises(SystemExit, match=r"expected a name that ends in \.parquet or \.csv"):
        batch.main()


@pytest.mark.parametrize("name", ["absent", "data/classes.json"])
def test_a_folder_that_cannot_be_looked_into_is_named(copy, name, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predict", name])
    with pytest.raises(SystemExit, match=f"error: {name} cannot be looked into"):
        batch.main()


def test_a_kill_while_a_run_goes_on_keeps_what_it_belongs_to(tmp_path, monkeypatch):
    place = batch.prepared(tmp_path / "out.csv", "task")
    (place / "000000.csv").touch()

    def refuse(*_):
        raise AssertionError("written again: a kill in between would lose it, and with it every part")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert batch.prepared(tmp_path / "out.csv", "task") == place
    assert (place / "000000.csv").exists()


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_no_part_and_no_table_is_half_there(name, tmp_path, monkeypatch):
    rows = [["a.png", "cat", "cat", "", "0.9"], ["b.png", "cat", "cat", "", "0.8"]]

    def killed(file):
        def write(content):
            file.write("half")
            raise KeyboardInterrupt

        return SimpleNamespace(writerows=write, writerow=write)

    place = batch.prepared(tmp_path / name, "task")
    batch.write(place / "000000.csv", rows)
    batch.write(place / "000001.csv", rows)
    batch.gather(place, tmp_path / name, ["cat"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(csv, "writer", killed)
        with pytest.raises(KeyboardInterrupt):
            batch.write(place / "000001.csv", rows)
    parts = iter([rows])
    monkeypatch.setattr(batch, "read", lambda _: next(parts))  # StopIteration, where a kill would be
    with pytest.raises(StopIteration):
        batch.gather(place, tmp_path / name, ["cat"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_pillow_warns_of_is_decoded_in_silence(tmp_path):
    """Here a PNG that says it is an animation of no frames."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    chunk = b"acTL" + bytes(8)
    chunk = struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])  # after the header
    code = "from serving.pictures import opened; from stages.images.decoding import Wanted; opened('a.png', Wanted(8))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
