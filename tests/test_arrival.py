"""What a block and the environment say of threads arrives in the frameworks: each is asked in a process of its own."""

import pytest

from tests.batteries import fresh

BEGIN = """
import os
os.environ.pop("OMP_NUM_THREADS", None)
os.dup2(1, 2)  # OpenMP says its settings there
os.environ["OMP_DISPLAY_ENV"] = "VERBOSE"
import stages.train
from stages.running import threads
threads.use({0})

def names():
    return [open(f"/proc/self/task/{{task}}/comm").read().strip() for task in os.listdir("/proc/self/task")]
"""
PYTORCH = """
from stages.backbones.pytorch import speedrun
import torch
print("threads", torch.get_num_threads())
"""
KERAS = """
from stages.backbones.keras import cnn
import tensorflow as tf
tf.linalg.matmul(tf.ones((500, 500)), tf.ones((500, 500))).numpy()
print("threads", len(names()))
"""
FLAX = """
from stages.backbones.flax import cnn
import jax.numpy as jnp
jnp.ones((500, 500)).dot(jnp.ones((500, 500))).block_until_ready()
print("threads", names().count("tf_XLAEigen"))
"""


def said(code: str, number: int) -> list[str]:
    return [line.strip() for line in fresh(BEGIN.format(number) + code)]


def counted(code: str, number: int) -> int:
    return next(int(line.split()[1]) for line in said(code, number) if line.startswith("threads "))


def test_pytorch_computes_with_the_threads_of_the_block_which_soon_sleep_while_they_wait() -> None:
    lines = said(PYTORCH, 1)
    assert "threads 1" in lines
    assert any(line.endswith("GOMP_SPINCOUNT = '10000'") for line in lines), (
        "it says PASSIVE of what it was not told, too"
    )


@pytest.mark.parametrize("code", [KERAS, FLAX], ids=["keras", "flax"])
def test_tensorflow_and_jax_have_as_many_threads_more_as_the_block_asks_for(code: str) -> None:
    assert counted(code, 4) - counted(code, 1) == 3
