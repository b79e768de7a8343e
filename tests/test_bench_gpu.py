"""`make bench-gpu`: a job in steps that can be interrupted, and its small rehearsal."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from benchmarks import gpu
from stages import backbones
from stages.running import parameters
from stages.running.errors import UserError
from tests.contract import ROOT

PROFILE = ROOT / "profiles/cifar10-gpu.yaml"


def script(folder: Path, name: str, text: str) -> list[str]:
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return [name]


def test_a_step_that_is_done_is_not_run_again(tmp_path: Path) -> None:
    words = script(tmp_path, "once", "open('runs', 'a').write('x')")
    assert gpu.Run(tmp_path, 1).step("split", words)
    assert gpu.Run(tmp_path, 1).step("split", words)
    assert (tmp_path / "runs").read_text() == "x"


def test_when_the_time_is_up_a_step_stops_and_the_next_call_begins_there(tmp_path: Path) -> None:
    slow = script(tmp_path, "slow", "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)")
    first = gpu.Run(tmp_path, 0.03)
    assert not first.step("train wide", slow)
    assert not first.step("train cnn", script(tmp_path, "late", "open('late', 'w')"))
    assert not (tmp_path / "late").exists()
    (tmp_path / "go").touch()
    again = gpu.Run(tmp_path, 1)
    assert again.step("train wide", slow)
    assert again.seconds["train wide"] > first.seconds["train wide"] >= 0.03 * 60


def test_a_step_that_fails_is_an_error_and_not_done(tmp_path: Path) -> None:
    run = gpu.Run(tmp_path, 1)
    with pytest.raises(UserError, match="stack failed with exit code 3"):
        run.step("stack", script(tmp_path, "bad", "import sys; sys.exit(3)"))
    assert run.done == []


def test_stages_find_their_code_and_keep_their_scratch_in_the_folder(tmp_path: Path) -> None:
    gpu.begin(tmp_path, {"seed": 0})
    gpu.begin(tmp_path, {"seed": 0})
    told = script(tmp_path, "told", "import os, stages; open('told', 'w').write(os.environ['FOLDSTACK_SCRATCH'])")
    assert gpu.Run(tmp_path, 1).step("told", told)
    assert (tmp_path / "told").read_text() == str(tmp_path / "scratch")
    with pytest.raises(UserError, match="another --folder"):
        gpu.begin(tmp_path, {"seed": 1})


def test_changes_are_dotted_names_and_values_in_yaml() -> None:
    found = gpu.job(parameters.read(PROFILE), ["data.path=/data/c", "backbones.wide.widths=[16, 32]"], rehearse=False)
    assert found["data"]["path"] == "/data/c"
    assert found["backbones"]["wide"]["widths"] == [16, 32]
    assert found["backbones"]["wide"]["epochs"] == 60
    with pytest.raises(UserError, match="expected NAME=VALUE"):
        gpu.job(found, ["epochs"], rehearse=False)


def test_the_rehearsal_has_every_backbone_with_narrow_layers_for_one_epoch() -> None:
    whole = parameters.read(PROFILE)
    found: dict[str, Any] = gpu.job(whole, [], rehearse=True)
    assert found["data"]["source"] == "digits"
    assert list(found["backbones"]) == list(backbones.blocks(whole))
    # That recipes take the narrow blocks, tests/test_profiles.py tries in processes of their frameworks.
    assert [block["epochs"] for block in found["backbones"].values()] == [1] * len(found["backbones"])
    text = yaml.safe_dump(found)
    assert "512" not in text.replace("batch_size: 512", "")
    assert parameters.read(PROFILE) == whole


def test_every_stage_is_a_step() -> None:
    names = [name for name, _ in gpu.steps(["a", "b"], rehearse=False)]
    assert names == [
        "split",
        "train a",
        "export a",
        "train b",
        "export b",
        "stack",
        "evaluate",
        "report",
        "pytorch",
        "airbench",
    ]


def test_the_table_tells_the_share_of_the_peak_where_it_is_known() -> None:
    scores = {"macro_f1": 0.9, "macro_f1_low": 0.8, "macro_f1_high": 1.0, "log_loss": 0.3}
    found: Any = SimpleNamespace(level="95 %", backbones=[scores | {"backbone": name} for name in ("stack", "a", "b")])
    seconds = {f"{stage} {name}": 1.0 for stage in ("train", "export") for name in "ab"}
    table = gpu.table(found, seconds, {"a": 0.4125, "b": None})
    assert table["share of peak"].to_dict() == {"stack": "", "a": "41.2 %", "b": "–"}
