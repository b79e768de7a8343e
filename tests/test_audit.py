"""Suspicious labels: planted ones are found and counted, and the page and the files say what was found."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import audit as planting
from stages import audit
from stages.auditing import confident, corrections, noise, page, pixels
from stages.images.dataset import Dataset
from stages.images.decisions.records import Decision
from stages.stacking.predictions import tables
from stages.stacking.predictions.log_space import normalise
from tests.toys import half_written, toy_index

K, N, N_TEST = 5, 3000, 300
DIGEST = "d" * 64


def predicted(seed: int, n: int = N, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """What a good network says of images, nine in ten of which are easy, and classes drawn as likely as it says."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, K))
    scores[np.arange(n), rng.integers(0, K, n)] += np.where(rng.random(n) < 0.9, 12, 4)
    p = np.exp(normalise(scores))
    classes = np.minimum((p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), K - 1)
    return normalise(sharpness * scores), classes


def flipped(classes: np.ndarray, share: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(classes)) < share
    return np.where(wrong, (classes + rng.integers(1, K, len(classes))) % K, classes), wrong


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_the_model_of_noise_counts_and_finds_planted_labels(share: float, sharpness: float) -> None:
    """However over- or underconfident the network is."""
    log_p, classes = predicted(0, sharpness=sharpness)
    labels, wrong = flipped(classes, share)
    said = noise.Said.of(log_p, labels)
    model = noise.fit(said, K)
    score = noise.wrong(model, said, K)
    taken = score > 0.5
    assert model.rate == pytest.approx(wrong.mean(), abs=0.01)
    assert wrong[taken].mean() > 0.9
    assert taken[wrong].mean() > 0.85
    assert score[taken].mean() == pytest.approx(wrong[taken].mean(), abs=0.05)


def test_where_no_label_is_wrong_next_to_none_is_suspicious() -> None:
    log_p, labels = predicted(0)
    said = noise.Said.of(log_p, labels)
    model = noise.fit(said, K)
    assert model.rate < 0.005
    assert (noise.wrong(model, said, K) > 0.5).sum() < 5
    sure = np.log(np.where(np.eye(2)[[0, 1] * 20] > 0, 1 - 1e-9, 1e-9))
    assert noise.fit(noise.Said.of(sure, np.array([0, 1] * 20)), 2).rate < 0.01  # nothing to fit a curve to


def test_confident_learning_counts_as_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.05, 0.95], [0.25, 0.75], [0.85, 0.15], [0.5, 0.5]])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    learned = confident.learn(np.log(p), labels)
    # Means of what images labelled so have for their class: (.9 + .7 + .2 + .4) / 4 and (.95 + .75 + .15 + .5) / 4.
    assert learned.thresholds.tolist() == pytest.approx([0.55, 0.5875])
    # Confidently 0: rows 0, 1, 6; confidently 1: rows 2, 3, 4, 5; row 7 is neither.
    assert confident.suspicious(np.log(p), labels, learned.thresholds).nonzero()[0].tolist() == [2, 3, 6]
    # Of label 0 two of four are of class 1, of label 1 one of three; half of the images are labelled as each.
    np.testing.assert_allclose(learned.joint, [[1 / 4, 1 / 4], [1 / 6, 1 / 3]])
    assert learned.rate == pytest.approx(5 / 12)


def test_of_two_classes_that_are_confident_the_likelier_counts_and_an_absent_class_none() -> None:
    p = np.array([[0.3, 0.5, 0.2], [0.4, 0.6, 0.0001], [0.5, 0.4, 0.1], [0.2, 0.3, 0.5]])
    labels = np.array([1, 1, 0, 0])
    learned = confident.learn(np.log(p), labels)
    assert learned.thresholds.tolist() == pytest.approx([0.35, 0.55, np.inf])
    counted, taken = confident.confidently(np.log(p), learned.thresholds)
    assert (counted.tolist(), taken[counted].tolist()) == ([False, True, True, False], [1, 0])


def test_confident_learning_finds_what_cleanlab_does() -> None:
    """Rows and thresholds by cleanlab 2.9.0: `find_label_issues(labels, p, filter_by="confident_learning")`."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 150)
    log_p = normalise(rng.normal(size=(150, 4)) + np.eye(4)[labels] * [0.5, 1, 1.5, 3])
    thresholds = confident.learn(log_p, labels).thresholds
    assert thresholds.round(6).tolist() == [0.281167, 0.423236, 0.542609, 0.796186]
    assert confident.suspicious(log_p, labels, thresholds).nonzero()[0].tolist() == [
        *(4, 8, 12, 27, 34, 36, 40, 43, 48, 49, 51, 57, 66),
        *(72, 82, 83, 98, 100, 102, 115, 116, 125, 129, 144, 147),
    ]


def test_empty_dark_and_blurred_images_are_flagged_and_no_others() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 16, 16, 3), np.uint8)
    images[3] = 7
    images[5] //= 9
    images[8] = np.repeat(np.repeat(images[8, ::8, ::8], 8, axis=0), 8, axis=1)
    images[9] = np.linspace(0, 255, 16, dtype=np.uint8)[:, None, None]
    found = pixels.look(images)
    assert [flag.nonzero()[0].tolist() for flag in found] == [[3], [3, 5], [8, 9]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A made-up job of two backbones with planted labels, audited; which rows' labels are wrong."""
    folder = tmp_path_factory.mktemp("audited")
    classes = np.concatenate([predicted(0)[1], predicted(9, N_TEST)[1]])
    truth = np.concatenate([predicted(0)[0], predicted(9, N_TEST)[0]])
    labels, wrong = flipped(classes, 0.05)
    row = np.arange(N + N_TEST)
    fold = np.where(row < N, row % 3, -1)
    images = np.random.default_rng(0).integers(0, 256, (len(row), 4, 4, 3), np.uint8)
    names = [f"<b>{label}</b></script>" for label in range(K)]
    Dataset.write(folder / "data", images, toy_index(labels, fold), names)
    rows, models = (
        np.concatenate([row[:N], np.tile(row[N:], 3)]),
        np.concatenate([fold[:N], np.repeat([0, 1, 2], N_TEST)]),
    )
    for name in ("one", "two"):
        apart = 0.3 * np.random.default_rng(len(name)).normal(size=(len(rows), K))
        log_p = normalise(truth[rows] + apart).astype(np.float32)
        tables.write(folder / f"data/predictions/{name}.parquet", rows, models, log_p, names)
    (folder / "params.yaml").write_text("seed: 0\n")
    (folder / "metrics").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        audit.main()
    return folder, wrong


def test_the_step_ranks_all_rows_and_tells_of_training_and_test_apart(finished: tuple[Path, np.ndarray]) -> None:
    folder, wrong = finished
    found, summary = (
        pd.read_parquet(folder / "metrics/audit.parquet"),
        json.loads((folder / "metrics/audit.json").read_text()),
    )
    assert sorted(found["row"]) == list(range(N + N_TEST))
    assert found["score"].is_monotonic_decreasing
    assert wrong[found["row"][:100]].mean() > 0.97
    assert summary["backbones"] == ["one", "two"]
    assert summary["noise_rate"] == pytest.approx(wrong[:N].mean(), abs=0.01)
    training = found[found["fold"] >= 0]
    for name, cut in summary["cuts"].items():
        taken = training[training[name]]
        assert (cut["training_images"], cut["test_images"]) == (len(taken), found[name].sum() - len(taken))
        assert cut["estimated_precision"] == pytest.approx(wrong[taken["row"]].mean(), abs=0.06)
    assert np.all(found["suggested"] != found["label"])
    assert (summary["test_scores"], len(summary["confusable"])) == ({}, 10)


def test_equal_inputs_give_equal_files(finished: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished[0])
    files = [finished[0] / f"metrics/audit.{kind}" for kind in ("json", "parquet", "html")]
    before = [path.read_bytes() for path in files]
    audit.main()
    assert [path.read_bytes() for path in files] == before


def test_a_page_that_finds_no_room_leaves_the_one_that_was_there(
    finished: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    before = {path: path.read_bytes() for path in Path("metrics").iterdir()}
    monkeypatch.setattr(Path, "write_text", half_written)
    with pytest.raises(SystemExit, match=r"the disk is full while writing metrics/.*audit\.html"):
        audit.main()
    assert {path: path.read_bytes() for path in Path("metrics").iterdir()} == before


def test_the_benchmark_scores_what_it_planted(
    finished: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished[0])
    dataset, found = Dataset.load(), pd.read_parquet("metrics/audit.parquet")
    planted = {dataset.index.sha256[row] for row in np.flatnonzero(finished[1][:N])}
    scored = planting.score(found, planted, 0.05).set_index("cut")
    assert scored.loc["strict", "precision"] > 0.9 < scored.loc["strict", "recall"] + 0.05
    assert scored.loc["disagreement", "recall"] >= scored.loc["strict", "recall"]
    decisions = planting.plant(dataset, 0.1, 0, planting.uniform(K))
    assert len(decisions) == N // 10 == len({each.pixels for each in decisions})
    assert all(each.to != each.label for each in decisions)
    assert planting.confused(dataset.classes).sum(axis=1).tolist() == [1] * K


def test_the_page_stands_alone_and_shows_the_most_suspicious_first(finished: tuple[Path, np.ndarray]) -> None:
    text = (finished[0] / "metrics/audit.html").read_text()
    found = pd.read_parquet(finished[0] / "metrics/audit.parquet")
    shown = re.findall(r'data-pixels="([0-9a-f]{64})"', text)
    assert shown == found["pixels"][: len(shown)].tolist()
    assert 100 < len(shown) <= page.SHOWN
    assert text.count("data:image/png;base64,") == len(shown)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    assert "<b>" not in text
    assert text.count("</script>") == 1


def test_the_page_tells_of_every_key_that_it_listens_to(finished: tuple[Path, np.ndarray]) -> None:
    text = (finished[0] / "metrics/audit.html").read_text()
    told = re.findall(r"<kbd>([a-z])</kbd>", text)
    maps = re.findall(r"(?:actions|boxes) = \{(.*?)\}", text)
    heard = [*re.findall(r"(\w): ", " ".join(maps)), *re.findall(r"event\.key === \"(\w)\"", text)]
    assert len(maps) == 2
    assert sorted(told) == sorted(heard) == sorted("krducws")


def row(**values: object) -> dict[str, object]:
    known = {"row": 0, "path": "a", "pixels": "0" * 64, "fold": 0, "label": "cat", "suggested": "dog", "score": 0.9}
    flags = dict.fromkeys([*page.CUTS, *page.FLAGS], False)
    return {**known, **flags, "decision": None, **values}


def test_what_was_kept_is_not_shown_again_and_of_copies_one_is() -> None:
    rows = [
        row(row=0),
        row(row=1),
        row(row=2, label="dog"),
        row(row=3, pixels="1" * 64, decision="keep"),
        row(row=4, pixels="2" * 64, decision="relabel", fold=-1),
        row(row=5, pixels="3" * 64, score=0.001),
        row(row=6, pixels="4" * 64, score=0.001, disagreement=True),
    ]
    shown = page.suspects(pa.Table.from_pylist(rows))
    assert [each["row"] for each in shown] == [0, 2, 4, 6]
    assert [page.marks(each) for each in shown[2:]] == ["test image, decided: relabel", "disagreement"]


def test_however_many_were_kept_the_next_ones_are_shown() -> None:
    rows = [row(row=n, pixels=f"{n:064x}", decision="keep" if n < 5 * page.SHOWN else None) for n in range(1502)]
    assert [each["row"] for each in page.suspects(pa.Table.from_pylist(rows))] == [1500, 1501]
    few = page.suspects(pa.Table.from_pylist([row(pixels=f"{n:064x}") for n in range(page.SHOWN + 5)]))
    assert len(few) == page.SHOWN


def test_of_copies_with_two_labels_each_has_its_own_decision(tmp_path: Path) -> None:
    """The labels of training rows are those that `split` has left."""
    index = toy_index(np.array([0, 1, 1, 0, 1]), np.array([0, 1, 0, -1, -1]))
    index = replace(index, sha256=(DIGEST, DIGEST, "e" * 64, DIGEST, DIGEST))
    dataset = Dataset.write(tmp_path, np.zeros((5, 2, 2, 3), np.uint8), index, ["cat", "dog"])
    known = {"reviewer": "ana", "date": "2026-01-31"}
    kept, mended = (
        Decision.model_validate({**known, **each})
        for each in (
            {"pixels": DIGEST, "label": "cat", "action": "keep"},
            {"pixels": "e" * 64, "label": "cat", "action": "relabel", "to": "dog"},
        )
    )
    assert corrections.actions([kept, mended], dataset) == ["keep", None, "relabel", "keep", None]


def test_reviewed_test_labels_give_a_second_score_and_change_none(tmp_path: Path) -> None:
    labels, fold = np.array([0, 1, 0, 1, 0, 1]), np.array([0, 1, -1, -1, -1, -1])
    dataset = Dataset.write(tmp_path, np.zeros((6, 2, 2, 3), np.uint8), toy_index(labels, fold), ["cat", "dog"])
    cat = np.array([1, 0, 0, 1, 0, 0], np.float32)
    said = {"row": [5, 4, 3, 2, 1, 0], "fold": fold[::-1], "p.cat": cat, "p.dog": 1 - cat}
    pq.write_table(pa.table(said), tmp_path / "images.parquet")

    def about(place: int, action: str, **more: str) -> Decision:
        known = {"pixels": dataset.index.sha256[place], "label": ["cat", "dog"][labels[place]], "action": action}
        return Decision.model_validate({**known, "reviewer": "ana", "date": "2026-01-31", **more})

    assert corrections.scores([about(0, "drop")], dataset, tmp_path / "none.parquet") == {}
    decisions = [about(0, "keep"), about(4, "relabel", to="dog"), about(5, "drop")]
    found: dict[str, Any] = corrections.scores(decisions, dataset, tmp_path / "images.parquet")
    assert found["decided"] == 2
    assert (found["raw"]["accuracy"], found["corrected"]["accuracy"]) == (0.5, 1.0)
    assert corrections.actions(decisions, dataset) == ["keep", None, None, None, "relabel", "drop"]
