"""Steps that train nothing themselves start without what takes long to import."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
SLOW = ["pandas", "pyarrow.dataset", "scipy", "sklearn", "matplotlib", "requests", "tqdm"]
FRAMEWORKS = ["torch", "tensorflow", "keras", "jax", "flax"]
JOB = {
    "data": {"train_limit": 12, "test_limit": 3},
    "backbones": {"toy": {"framework": "pytorch", "recipe": "speedrun"}},
}
STEPS = """
import sys
from pathlib import Path

from stages import export, refit, split, train
from stages.executors import inline
from stages.images.dataset import Dataset
from tests.toys import TOY, ToyParams

split.main()
names, sys.argv = sys.argv[1:], ["refit", "toy"]
refit.main()
toy = train.Backbone("toy", lambda: (TOY, ToyParams()), lambda model: model)
train.train(Dataset.load, toy, inline.run, place=Path("scratch"), models=Path("models"), curve=Path("toy.csv"))
dataset = Dataset.load()
found = export.predict(dataset, TOY, Path("models"), "toy")
export.tables.write(Path("toy.parquet"), found.rows, found.models, found.log_p, dataset.classes)
export.costs.write(Path("costs"), "toy", "toy", 1.0)
print("imported:", *(name for name in names if name in sys.modules))
"""


def test_split_train_export_and_a_refit_of_nothing_import_neither_pandas_nor_a_framework(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(JOB))
    run, path = [sys.executable, "-c", STEPS, *SLOW, *FRAMEWORKS], os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(run, cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "imported:"
    assert (tmp_path / "toy.parquet").exists()
