"""What is deployed is whole, has nothing that trains, and says one thing in all its files."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from serving.server.settings import Settings
from tests import alone

ROOT = Path(__file__).parent.parent
SPACE, RENDER = ROOT / "deploy/huggingface/README.md", ROOT / "deploy/render.yaml"
IMPORTS = """
import importlib, pkgutil, serving
for found in pkgutil.walk_packages(serving.__path__, "serving."):
    if found.name != "serving.check" and not found.name.endswith("__main__"):  # it compares with what trained
        importlib.import_module(found.name)
import serving.server.__main__
"""
TRAINING = {"torch", "tensorflow", "keras", "jax", "xgboost", "scikit-learn", "scipy", "dvc", "pyarrow"}


def test_the_image_holds_all_that_serving_imports(tmp_path):
    alone.plant(tmp_path)
    command = alone.command(IMPORTS, alone.importable())
    told = {"cwd": tmp_path, "env": alone.environment(), "capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, **told)
    assert done.returncode == 0, done.stderr


def test_what_serves_has_the_versions_that_were_tested_and_nothing_that_trains():
    serving, all_of_it = alone.pins(alone.LOCK), alone.pins(ROOT / "requirements.lock")
    assert {name: all_of_it.get(name) for name in serving} == serving
    assert serving.keys() & TRAINING == set()


def test_every_place_names_the_same_port_and_a_route_that_is_there():
    (port,) = re.findall(r"FOLDSTACK_PORT=(\d+)", (ROOT / "Dockerfile").read_text())
    _, head, _ = SPACE.read_text().split("---\n")
    (service,) = yaml.safe_load(RENDER.read_text())["services"]
    told = {each["key"]: each["value"] for each in service["envVars"]}
    assert {str(yaml.safe_load(head)["app_port"]), told["PORT"]} == {port}
    routes = (ROOT / "serving/server/routes.py").read_text()
    assert f'"{service["healthCheckPath"]}"' in routes
    assert "/readyz" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("path", ["Dockerfile", "docs/deploy.md", "deploy/render.yaml", "SECURITY.md"])
def test_every_setting_that_is_named_is_there(path):
    named = set(re.findall(r"FOLDSTACK_([A-Z]+)", (ROOT / path).read_text()))
    assert named <= {name.upper() for name in Settings.model_fields}
