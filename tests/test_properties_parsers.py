"""Whatever comes: a parser gives a value that comes back when it is written, or a UserError, and nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML, YAMLError

from serving import Bundle, bundle
from stages import backbones
from stages.admitting import reading
from stages.backbones.vocabulary.block import Optimized
from stages.backbones.vocabulary.layers import Layered
from stages.backbones.vocabulary.phases import Phase, check_epochs, complete
from stages.backbones.vocabulary.schedules import rates
from stages.evaluate import Params as Evaluate
from stages.images.collection import Data, Table
from stages.images.decisions import records
from stages.images.folds import Split
from stages.images.sources import columns, names, table
from stages.running import parameters, threads
from stages.running.errors import UserError
from stages.running.parameters import Block
from stages.showing import checks
from stages.stack import Params as Stack
from tuning import space


class Words(Optimized, Layered):
    """What blocks of recipes are made of."""

    library = "numpy"
    phases: tuple[Phase, ...] = ()


SECTIONS: dict[str, type[Block]] = {"data": Data, "split": Split, "stack": Stack, "evaluate": Evaluate, "words": Words}


def models(kind: type[Block]) -> list[type[Block]]:
    return [kind, *(more for each in kind.__subclasses__() for more in models(each))]


KEYS = sorted({name for kind in models(Block) for name in kind.model_fields} | set(parameters.SECTIONS))
TEXTS = st.text(max_size=5) | st.sampled_from(["", ".", "none", "\0", "relu", "head", "all", "decisions/a", "../a"])
NUMBERS = st.integers(-1, 9) | st.integers() | st.floats() | st.sampled_from([1e300, 2**64, 10**40, 0.5])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS | st.sampled_from(KEYS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | SCALARS, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all examples."""
    return tmp_path_factory.mktemp("parsers")


@given(st.text() | st.text("&*!|>{}[]:-?,#%@`'\" \n\t.0123456789eE_+abox~<"))
@example("[" * 3000)
@example("a: " * 200)
@example("seed: 2001-99-99")
@example("seed: 0b_")
@example("seed: ._")
@example("seed: !!int x")
@example("seed: !!timestamp x")
@example("seed: !!bool maybe")
@example("seed: " + "9" * 5000)
@example("seed: &a [*a]")
@example("search: {[1]: 2}")
@example("stack: &a {a: *a}")
@example("backbones: {a: {framework: pytorch, recipe: timm, 2001-01-01: 1}}")
@example("data: {decisions: ''}")
def test_any_text_is_parameters_or_refused(folder: Path, text: str) -> None:
    path = folder / "params.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    sections(path)


def sections(path: Path) -> None:
    """What the steps make of a file of parameters."""
    try:
        content = parameters.read(path)
    except UserError:
        return
    looks = [lambda: parameters.seed(content), lambda: backbones.blocks(content), lambda: checks.weighted(content)]
    for name, model in SECTIONS.items():
        looks.append(lambda name=name, model=model: parameters.section(content, name, model))
    looks += [lambda: checks.look_for_images(content["data"]) if isinstance(content.get("data"), dict) else None]
    for look in looks:
        told(look)
    for part in (checks.SECTIONS, "pytorch"):
        checks.marker(content, part)


def told(look: Any) -> Any:
    """None for what is refused in words."""
    message = ""
    try:
        return look()
    except UserError as error:
        message = str(error)
    assert message
    return None


@pytest.mark.parametrize("name", SECTIONS)
@given(st.data())
def test_any_block_is_written_as_it_was_read_or_refused(folder: Path, name: str, data: Any) -> None:
    model = SECTIONS[name]
    fields = dict.fromkeys(model.model_fields, NUMBERS | VALUES)
    block = data.draw(st.fixed_dictionaries({}, optional=fields) | VALUES)
    found = told(lambda: parameters.check(block, model, place=name))
    if found is None:
        return
    found.save(folder / "block.json")
    assert model.restore(folder / "block.json") == found
    again = parameters.check(yaml.safe_load(yaml.safe_dump(found.model_dump(mode="json"))), model, place=name)
    assert again == found


KINDS = ["conv", "dense", "batch_norm", "activation", "max_pool", "flatten", "dropout", "residual", "kernel", "stride"]
KINDS += ["flip", "shift", "rotation", "erase", "rand_augment", "cosine", "one_cycle", "step", "plateau", "constant"]
OPTIONS = st.dictionaries(st.sampled_from(KINDS), st.integers(0, 4) | st.sampled_from([0.1, "relu", None]), max_size=3)
ENTRY = st.recursive(
    st.sampled_from(KINDS) | OPTIONS, lambda inner: st.fixed_dictionaries({"residual": st.lists(inner)})
)


@given(
    st.lists(ENTRY, min_size=1, max_size=4),
    st.lists(ENTRY, max_size=2),
    ENTRY,
    st.lists(st.fixed_dictionaries({}, optional={"epochs": st.integers(1, 9), "trainable": SCALARS}), max_size=3),
)
def test_layers_changes_schedules_and_phases_come_back(
    folder: Path, layers: list, changes: list, schedule: Any, phases: list
) -> None:
    base: dict[str, Any] = {"layers": ["flatten"], "epochs": 9}
    for part in ({"layers": layers}, {"augmentation": changes}, {"schedule": schedule}, {"phases": phases}):
        found = told(lambda part=part: parameters.check(base | part, Words, place="words"))
        if found is None:
            continue
        found.save(folder / "words.json")
        assert Words.restore(folder / "words.json") == found
        curve = rates(found.schedule, 1.0, 50)
        assert ((curve >= 0) & (curve <= 1)).all()
        if told(lambda found=found: check_epochs(found.phases, 9) or True) and found.phases:
            assert sum(phase.epochs or 0 for phase in complete(found.phases, found)) == 9


@given(st.text("0123456789_.eE+-xobXinfNaAuUltrueTRyso:~", min_size=1, max_size=9))
def test_scalars_are_read_as_dvc_reads_them(folder: Path, text: str) -> None:
    try:
        expected = YAML(typ="safe").load(f"seed: {text}")
    except (YAMLError, ValueError, AttributeError, TypeError):
        return
    (folder / "scalar.yaml").write_text(f"seed: {text}")
    found = told(lambda: parameters.read(folder / "scalar.yaml"))
    if isinstance(expected, dict) and isinstance(expected.get("seed"), bool | int | float | str) and found is not None:
        assert repr(found) == repr(expected)


@given(VALUES, st.sampled_from(["a", "b"]))
@example({"low": 1, "high": 10**40, "step": 3}, "a")
def test_any_space_of_a_search_is_one_or_refused(given_: Any, path: str) -> None:
    if found := told(lambda: space.read({"search": {"a": {path: given_}}}, "a")):
        (dimension,) = found.dimensions.values()
        dimension.distribution()
        for probe in dimension.probes:
            assert dimension.suggested(probe) is None or dimension.value(dimension.suggested(probe)) == probe


@given(VALUES)
def test_any_number_of_threads_and_seeds_is_one_or_refused(value: Any) -> None:
    block = {"threads": value, "seeds": value}
    number = told(lambda: threads.of(block, place="a"))
    assert number is None or 1 <= number <= threads.MOST
    told(lambda: backbones.seeds(block, place="a"))


JSON = st.recursive(
    SCALARS.filter(lambda value: value == value), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)
)
WEIGHT = {"pixels": "0" * 64, "action": "weight", "label": "a", "reviewer": "a", "date": "2026-01-01"}
DECISION = st.fixed_dictionaries(
    {"pixels": st.just("0" * 64), "action": st.sampled_from(["keep", "drop", "relabel", "weight"])},
    optional={"label": TEXTS, "to": TEXTS, "weight": NUMBERS, "reviewer": TEXTS, "date": st.just("2026-01-01")},
)


@given((JSON | DECISION).map(json.dumps) | st.text())
@example("[" * 100_000)
@example("9" * 5000)
@example('{"label": "\\ud800"}')
@example(json.dumps(WEIGHT | {"weight": 1e39}))
def test_any_line_is_a_decision_or_refused(line: str) -> None:
    found = told(lambda: records.parse(line, "here"))
    if found is not None:
        assert found.weight is None or found.weight < float(np.finfo(np.float32).max)
        assert records.parse(records.text([found]).removesuffix("\n"), "here") == found


CELLS = st.sampled_from(
    ["a.png", "1", "-1", "0.5", "train", "test", "", '"', "\0", "nan", "1e999", "9" * 5000, "\u0085"]
)
ROWS = st.lists(st.lists(CELLS, min_size=1, max_size=4).map(",".join), max_size=6).map("\n".join)
HEADS = ["image,label", "image,label,split,fold", "image;label", "image,label,weight", "row,sha256,fold,p.a,p.b", '"a']


@example("image,label", "a.png," + "9" * 5000, "split")
@example("row,sha256,fold,p.a,p.b", "1,a,1e999,1,1", "split")
@example("row,sha256,fold,p.a,p.b", "1e300,a,1,1,1", "split")
@given(st.sampled_from(HEADS), ROWS | st.text(max_size=20), st.sampled_from(["split", "fold", "group", "weight"]))
def test_any_table_is_one_or_refused(folder: Path, head: str, rows: str, more: str) -> None:
    text = f"{head}\n{rows}".encode("utf-8", "surrogatepass")
    base = folder / "table"
    base.mkdir(exist_ok=True)
    for name in ("a.png", "1.png"):
        (base / name).touch()
    (base / "labels.csv").write_bytes(text)
    (folder / "p.csv").write_bytes(text)
    for asked in (Table(), Table.model_validate({more: more})):
        told(lambda asked=asked: columns.read(base / "labels.csv", asked))
        found = told(lambda asked=asked: table.collect(Data(source="table", path=base, table=asked)))
        assert found is None or len(found.labels) == len(found.paths) > 0
    told(lambda: reading.read(folder / "p.csv", ["a", "b"]))


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=3))
@example([b"\xff"])
def test_labels_left_as_bytes_are_text_or_refused(folder: Path, labels: list[bytes]) -> None:
    pq.write_table(pa.table({"image": ["a"] * len(labels), "label": labels}), folder / "bytes.parquet")
    data = Data(source="table", path=folder / "bytes.parquet")
    found = told(lambda: table.gather([columns.read(data.path, data.table)], data))
    try:
        expected = [names.canonical(label.decode()) for label in labels]
    except UnicodeDecodeError:
        expected = None
    assert (found and found.label) == expected


@given(TEXTS, TEXTS)
@example("", "a")
@example("/a", "a")
@example("**a", "a")
@example(".", "a")
def test_any_place_of_a_table_is_one_or_refused(folder: Path, file: str, path: str) -> None:
    (folder / "place").mkdir(exist_ok=True)
    for base in (folder / "place", Path(path)):
        told(lambda base=base: table.find(Data(source="table", path=base, table=Table(file=file))))


@given(st.lists(st.text(max_size=6), max_size=5))
def test_any_names_of_splits_and_classes_are_told_apart(found: list[str]) -> None:
    for name in found:
        split = names.split_of(name)
        assert split is None or names.split_of(name.upper()) == split
        assert names.canonical(names.canonical(name)) == names.canonical(name)
    told(lambda: names.check_twins(found, "here"))


MANIFEST = {"format": bundle.FORMAT, "classes": ["a"], "students": {}, "missing": {}, "files": {}, "cascade": []}


@given(JSON.map(json.dumps) | st.text(), st.sampled_from(sorted(MANIFEST)), JSON)
@example("[" * 100_000, "files", {})
def test_any_manifest_is_one_or_refused(folder: Path, text: str, key: str, value: Any) -> None:
    for content in (text, json.dumps(MANIFEST | {key: value})):
        (folder / bundle.MANIFEST).write_text(content)
        with pytest.raises(UserError):
            Bundle.load(folder)
